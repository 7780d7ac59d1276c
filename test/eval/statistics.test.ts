import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { key } from '../../src/core/random.js';
import { frechet } from '../../src/eval/frechet.js';
import { Manifold } from '../../src/eval/manifold.js';
import { Moments, type Statistics, statistics } from '../../src/eval/moments.js';
import { PatchPca } from '../../src/eval/pca.js';
import { PsnrMeter, psnr } from '../../src/eval/psnr.js';
import { effectiveRank, latentHealth, RankMeter } from '../../src/eval/rank.js';
import { Reference } from '../../src/eval/reference.js';
import { cat, layerNorm, memory, randn, scope, setThreads, type Tensor, tensor, zeros } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';
import { fixture, relative } from './oracle.js';

setThreads(1); // tensors this small gain nothing from more, and test files run side by side

const near = (found: number, wanted: number, tolerance: number, what = '') =>
  assert.ok(Math.abs(found - wanted) <= tolerance * Math.max(1, Math.abs(wanted)), `${what} ${found}, wanted ${wanted}`);
const normal = (rows: number, columns: number, seed = 1, dtype: 'float64' | 'float32' = 'float64') =>
  randn(key(seed, 'test'), 0, [rows, columns], { dtype });

const TEST = { name: 'test', distance: 'FD-test' };

/** (B, H, W, ch) -> (M, 4 * 4 * ch) */
const patches = (x: Tensor) => {
  const [B, H, , ch] = x.shape as [number, number, number, number];
  const n = H / 4;
  return x
    .view(B, n, 4, n, 4, ch)
    .permute(0, 1, 3, 2, 4, 5)
    .reshape(-1, 16 * ch);
};

test("effective rank, PSNR, PCA, Frechet distance, precision and recall are the oracle's", () => {
  const oracle = fixture('statistics');
  scope(() => {
    near(effectiveRank(oracle.get('rank.latents')), oracle.number('rank.value'), 1e-9, 'effective rank');
    near(psnr(oracle.get('pictures.test'), oracle.get('psnr.other')), oracle.number('psnr.value'), 1e-9, 'psnr');

    const moments = statistics(patches(oracle.get('pictures.fit')));
    const shown = patches(oracle.get('pictures.test'));
    for (const components of [5, 16]) {
      const pca = new PatchPca(moments, components);
      const error = pca.reconstruct(shown).sub(shown).square().mean().item() as number; // the oracle does not clamp
      near(10 * Math.log10(4 / error), oracle.number(`pca${components}.psnr`), 1e-9, 'pca');
      if (components === 5) assert.ok(relative(pca.reconstruct(shown), oracle.get('pca5.patches')) < 1e-9);
      pca.dispose();
    }

    const [real, fake] = [oracle.get('features.real'), oracle.get('features.fake')];
    const reference = Reference.ofPictures(TEST, { pooled: real }, { seed: 0 });
    const found = reference.measure({ pooled: fake });
    near(found.frechet, oracle.number('frechet.value'), 1e-9, 'frechet');
    near(found.precision ?? Number.NaN, oracle.number('precision.value'), 1e-12, 'precision');
    near(found.recall ?? Number.NaN, oracle.number('recall.value'), 1e-12, 'recall');
    reference.dispose();
  });
});

test('statistics are the same to the bit however the rows are cut', () => {
  scope(() => {
    const rows = normal(9000, 7, 2, 'float32').mul(0.01).add(3);
    const whole = statistics(rows);
    for (const size of [1, 37, 4096, 5000]) {
      const moments = new Moments();
      for (let at = 0; at < (size === 1 ? 50 : 9000); at += size) moments.add(rows.narrow(0, at, Math.min(size, 9000 - at)));
      if (size === 1) moments.add(rows.narrow(0, 50, 8950));
      assert.deepEqual(moments.read(), whole);
      assert.deepEqual(moments.read(), whole, 'reading changes nothing');
      moments.dispose();
    }
  });
});

test('a mean that is large beside the deviation costs no accuracy', () => {
  scope(() => {
    const rows = normal(6000, 3, 3);
    const [plain, moved] = [statistics(rows), statistics(rows.add(1e6))];
    for (const [i, value] of plain.covariance.entries()) near(moved.covariance[i] as number, value, 1e-8);
    near(moved.mean[1] as number, (plain.mean[1] as number) + 1e6, 1e-12);
  });
});

test('rows that are not finite, or too few, have no statistics', () => {
  scope(() => {
    const rows = normal(8, 3);
    rows.narrow(0, 2, 1).narrow(1, 1, 1).fill_(Number.NaN);
    assert.throws(
      () => statistics(rows),
      (error: Error) => error instanceof FailureError && /column 1 of 8 rows/.test(error.message),
    );
    assert.throws(() => statistics(normal(1, 3)), FailureError);
    assert.throws(() => new Moments().read(), FailureError);
  });
});

test('the effective rank of matrices that are known', () => {
  scope(() => {
    const line = normal(500, 1).matmul(tensor([1, 2, 3, -1], [1, 4], { dtype: 'float64' }));
    near(effectiveRank(line), 1, 1e-5, 'one direction');
    assert.equal(effectiveRank(zeros([10, 4]).add(2)), 0, 'a constant');
    const signs = tensor([1, 1, 1, -1, -1, 1, -1, -1], [4, 2], { dtype: 'float64' }); // centred, orthogonal, of equal length
    near(effectiveRank(signs), 2, 1e-12);
    const uneven = signs.mul(tensor([3, 1], [2], { dtype: 'float64' })); // p = 3/4, 1/4
    near(effectiveRank(uneven), Math.exp(-(0.75 * Math.log(0.75) + 0.25 * Math.log(0.25))), 1e-12);
    const latents = normal(4096, 16, 5, 'float32');
    near(effectiveRank(latents), 16, 2e-3);
    const normed = effectiveRank(layerNorm(latents, [16], undefined, undefined, 1e-6));
    assert.ok(normed > 14.9 && normed <= 15.0001, `LayerNorm takes one dimension away: ${normed}`);
  });
});

test('the rank of a latent with a tiny direction agrees with the singular values', () => {
  scope(() => {
    const scales = [1, 0.3, 1e-3, 1e-6];
    const p = scales.map((s) => s / scales.reduce((a, b) => a + b));
    const wanted = Math.exp(-p.reduce((sum, x) => sum + x * Math.log(x), 0));
    const hadamard = tensor([1, 1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1], [4, 4], { dtype: 'float64' });
    const rows = cat([hadamard, hadamard.neg()]).mul(tensor(scales, [4], { dtype: 'float64' }));
    near(effectiveRank(rows), wanted, 1e-6);
  });
});

test('the deviation of a latent is about the mean of each channel', () => {
  scope(() => {
    const latents = normal(5000, 4, 6).mul(0.5);
    near(latentHealth(latents).deviation, 0.5, 0.02);
    const shifted = latents.add(tensor([5, -5, 9, 0], [4], { dtype: 'float64' }));
    near(latentHealth(shifted).deviation, latentHealth(latents).deviation, 1e-9);
    assert.equal(latentHealth(latents.view(50, 100, 4)).tokens, 5000);
  });
});

test('PSNR pools the error, clamps both sides and starts anew once read', () => {
  scope(() => {
    const meter = new PsnrMeter();
    const zero = zeros([2, 4, 4, 1]);
    meter.add(zero, zero.add(0.1));
    meter.add(zero, zero.add(0.3));
    near(meter.decibels(), 10 * Math.log10(4 / 0.05), 1e-6);
    assert.ok(Number.isNaN(meter.decibels()));
    assert.equal(psnr(zero.add(1), zero.add(7)), Number.POSITIVE_INFINITY, 'what is beyond 1 is 1 in a picture');
    near(psnr(zero.sub(1), zero.add(7)), 0, 1e-12);
    assert.throws(() => psnr(zero, zeros([1, 4, 4, 1])), RangeError);
  });
});

test('the Frechet distance of Gaussians that are known', () => {
  const gaussian = (mean: number[], variances: number[]): Statistics => ({
    count: 100,
    mean: Float64Array.from(mean),
    covariance: Float64Array.from(variances.flatMap((_, i) => variances.map((v, j) => (i === j ? v : 0)))),
  });
  const [a, b] = [gaussian([0, 1, 2], [1, 4, 0]), gaussian([1, 1, 0], [9, 4, 0.25])];
  near(frechet(a, b), 1 + 4 + (3 - 1) ** 2 + 0 + 0.5 ** 2, 1e-12, 'commuting covariances');
  near(frechet(a, b), frechet(b, a), 1e-12);
  near(frechet(a, a), 0, 1e-12);
  // Two of rank one that do not commute: tr (S1 S2)^1/2 = |u . v| for S1 = u u', S2 = v v'.
  const outer = (v: number[]) => ({
    count: 9,
    mean: new Float64Array(2),
    covariance: Float64Array.from([v[0]! * v[0]!, v[0]! * v[1]!, v[0]! * v[1]!, v[1]! * v[1]!]),
  });
  near(frechet(outer([1, 2]), outer([3, -1])), 5 + 10 - 2 * 1, 1e-9);
  assert.throws(
    () => frechet(a, outer([1, 2])),
    (error: Error) => error instanceof UsageError && /3 features, the other 2/.test(error.message),
  );
});

test('precision and recall are those of every pair looked at, beyond the size of one slab', () => {
  const [M, P, D, k] = [3000, 40, 2, 3];
  scope(() => {
    const [real, fake] = [normal(M, D, 7), normal(P, D, 8).mul(2).add(0.5)];
    const manifold = new Manifold(real, k);
    const [a, b] = [real.toArray() as Float64Array, fake.toArray() as Float64Array];
    const squared = (x: Float64Array, i: number, y: Float64Array, j: number) =>
      (x[2 * i]! - y[2 * j]!) ** 2 + (x[2 * i + 1]! - y[2 * j + 1]!) ** 2;
    const inside = new Array<boolean>(P).fill(false);
    for (let i = 0; i < M; i++) {
      const nearest = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      for (let j = 0; j < M; j++) {
        const d = i === j ? Number.POSITIVE_INFINITY : squared(a, i, a, j);
        if (d >= nearest[2]!) continue;
        nearest.splice(
          nearest.findIndex((other) => d < other),
          0,
          d,
        );
        nearest.pop();
      }
      for (let j = 0; j < P; j++) if (squared(a, i, b, j) <= nearest[2]!) inside[j] = true;
    }
    near(manifold.covers(fake), inside.filter(Boolean).length / P, 1e-12);
    assert.equal(manifold.covers(real), 1);
    assert.equal(manifold.covers(real.add(1e3)), 0);
    manifold.dispose();
    assert.throws(() => new Manifold(normal(3, 2)), UsageError);
  });
});

test('a class mean is precise and covers nothing', () => {
  scope(() => {
    const reference = Reference.ofPictures(TEST, { pooled: normal(200, 3, 9) }, { seed: 0 });
    const found = reference.measure({ pooled: normal(200, 3, 10).mul(1e-3) });
    assert.equal(found.precision, 1);
    assert.ok((found.recall ?? 1) < 0.05, `recall ${found.recall}`);
    assert.equal(reference.warning(200), undefined);
    assert.match(reference.warning(3) ?? '', /3 pictures for 3 features/);
    reference.dispose();
  });
});

test('meters hold a few tensors, outside of scopes, and let go of them', async () => {
  const before = await liveTensors();
  const [rank, quality] = [new RankMeter(), new PsnrMeter()];
  for (let i = 0; i < 5; i++)
    scope(() => {
      const x = normal(64, 4, i);
      rank.add(x);
      quality.add(x, x.mul(0.9));
    });
  assert.ok(memory().live - before <= 5, `${memory().live - before} tensors are held`);
  rank.read();
  quality.decibels();
  assert.equal(memory().live, before);
});

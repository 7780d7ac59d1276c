/** The evaluator's numbers against an independent program's: test/oracle/eval_expected.py says how each was found. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { key } from '../../src/core/random.js';
import { FrechetReference, frechet } from '../../src/eval/frechet.js';
import { frechetBias, frechetWarning } from '../../src/eval/frechet-bias.js';
import { inceptionScore } from '../../src/eval/inception-score.js';
import { kid } from '../../src/eval/kid.js';
import { Manifold, precisionRecall } from '../../src/eval/manifold.js';
import { type Statistics, statistics } from '../../src/eval/moments.js';
import { PsnrMeter, psnr } from '../../src/eval/psnr.js';
import { latentHealth } from '../../src/eval/rank.js';
import { SsimMeter, ssim } from '../../src/eval/ssim.js';
import { sumEach } from '../../src/eval/tally.js';
import { readNpz } from '../../src/io/npz.js';
import { cat, memory, noGrad, randn, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1);

const FOLDER = join(import.meta.dirname, '..', '..', '..', 'test', 'fixtures', 'eval');
const expected = readNpz(join(FOLDER, 'numerics.npz'));
const features = readNpz(join(FOLDER, 'features.npz'));

/** An array of either file, in the type that it has. */
function given(name: string, from = expected): Tensor {
  const array = from.get(name);
  assert.ok(array && (array.dtype === 'float64' || array.dtype === 'float32'), name);
  return tensor(array.data, [...array.shape], { dtype: array.dtype });
}

const values = (name: string): Float64Array => {
  const array = expected.get(name);
  assert.ok(array?.dtype === 'float64', name);
  return array.data;
};
const number = (name: string): number => values(name)[0] as number;

/** Within `tolerance` of what is wanted, relative. */
function near(found: number, wanted: number, tolerance: number, what: string): void {
  assert.ok(Math.abs(found - wanted) <= tolerance * Math.abs(wanted), `${what}: ${found}, wanted ${wanted}`);
}

const sets = (name: string): { real: Tensor; fake: Tensor } =>
  name === 'torch'
    ? { real: given('real', features), fake: given('fake', features) }
    : { real: given(`set.${name}.real`), fake: given(`set.${name}.fake`) };

const normal = (rows: number, columns: number, seed: number) => randn(key(seed, 'test'), 0, [rows, columns], { dtype: 'float64' });

/** `features` with one value that is not finite. */
const broken = (rows: number, columns: number) => {
  const x = normal(rows, columns, 1);
  noGrad(() =>
    x
      .narrow(0, rows - 1, 1)
      .narrow(1, 0, 1)
      .fill_(Number.POSITIVE_INFINITY),
  );
  return x;
};

for (const [name, tolerance] of [
  ['rotated', 1e-9], // variances from 10 to 1e-16
  ['steep', 1e-7], // the distance lies in directions that have a millionth of the variance
  ['lines', 1e-12],
  ['plane', 1e-12],
  ['full', 1e-10],
] as const)
  test(`the Frechet distance of known Gaussians: ${name}`, () => {
    const [a, b] = ['1', '2'].map(
      (i): Statistics => ({
        count: Number.POSITIVE_INFINITY,
        mean: values(`gaussian.${name}.mean${i}`),
        covariance: values(`gaussian.${name}.cov${i}`),
      }),
    ) as [Statistics, Statistics];
    near(frechet(a, b), number(`gaussian.${name}.distance`), tolerance, name);
    near(frechet(b, a), number(`gaussian.${name}.distance`), tolerance, `${name} the other way round`);
    const most = a.covariance.reduce((sum, value) => sum + Math.abs(value), 0);
    assert.ok(frechet(a, a) >= 0 && frechet(a, a) < 1e-12 * most, 'to itself');
  });

test('a reference that many sets are measured against gives each the distance that it would have alone, to the bit', async () => {
  const [a, b] = ['1', '2'].map(
    (i): Statistics => ({
      count: 1000,
      mean: values(`gaussian.full.mean${i}`),
      covariance: values(`gaussian.full.cov${i}`).slice(), // one of its own, to be spoilt
    }),
  ) as [Statistics, Statistics];
  const alone = frechet(a, b);
  const before = await liveTensors();
  const reference = new FrechetReference(b);
  assert.equal(reference.distance(a), alone);
  // What was decomposed once is not looked at again: only the traces are.
  b.covariance.set(b.covariance.map((value, i) => (i % (a.mean.length + 1) === 0 ? value : 0)));
  assert.equal(reference.distance(a), alone);
  assert.notEqual(frechet(a, b), alone);
  assert.throws(() => frechet(a, { ...b, covariance: b.covariance.map((value) => -value) }), /it is none/);
  reference.dispose();
  assert.equal(memory().live, before);
  const constant = { count: 10, mean: a.mean, covariance: new Float64Array(a.covariance.length) };
  assert.equal(frechet(constant, constant), 0);
});

for (const name of ['torch', 'few', 'offset'])
  test(`features of the set '${name}' are as far apart as the oracle says`, () => {
    scope(() => {
      const { real, fake } = sets(name);
      near(frechet(statistics(real), statistics(fake)), number(`set.${name}.frechet`), 1e-9, 'frechet');
      for (const k of [1, 3, 5]) {
        const [a, b] = [new Manifold(real, k), new Manifold(fake, k)];
        const { precision, recall } = precisionRecall(a, b);
        near(precision, number(`set.${name}.precision${k}`), 1e-15, `precision, k = ${k}`);
        near(recall, number(`set.${name}.recall${k}`), 1e-15, `recall, k = ${k}`);
        assert.equal(a.covers(fake), precision);
        assert.equal(b.covers(real), recall);
        a.dispose();
        b.dispose();
      }
      const some = kid(real, fake, { seed: 7, subsets: 10, size: 25 });
      const [mean, deviation] = values(`set.${name}.kid`) as unknown as [number, number];
      near(some.mean, mean, 1e-9, 'kid');
      near(some.deviation, deviation, 1e-9, 'deviation of kid');
      const few = Math.min(real.shape[0] as number, fake.shape[0] as number);
      const all = kid(real.narrow(0, 0, few), fake.narrow(0, 0, few), { seed: 1, subsets: 2 });
      assert.deepEqual([all.size, all.subsets], [few, 2]);
      near(all.mean, number(`set.${name}.kid.all`), 1e-9, 'kid of all');
      near(all.deviation + 1, 1, 1e-6, 'the order of the pictures does not matter');
    });
  });

test('the Inception Score and the spectrum are those of the oracle', () => {
  scope(() => {
    for (const splits of [1, 7, 10]) {
      const found = inceptionScore(given('logits', features), splits);
      const [mean, deviation] = values(`score.${splits}`) as unknown as [number, number];
      near(found.mean, mean, 1e-12, 'score');
      near(found.deviation + 1, deviation + 1, 1e-12, 'deviation');
    }
    const wanted = values('spectrum');
    const { spectrum } = latentHealth(given('real', features));
    assert.equal(spectrum.length, wanted.length);
    for (const [i, value] of spectrum.entries())
      assert.ok(Math.abs(value - (wanted[i] as number)) < 1e-7 * (wanted[0] as number), `direction ${i}`);
    const certain = tensor([1000, 0, 0, 0, 1000, 0, 0, 0, 1000], [3, 3], { dtype: 'float64' });
    near(inceptionScore(certain, 1).mean, 3, 1e-12, 'three sure and different classes');
    near(inceptionScore(certain.narrow(0, 0, 1), 1).mean, 1, 1e-12, 'one');
  });
});

for (const name of ['colour', 'grey', 'smallest'])
  test(`PSNR and SSIM of pictures are scikit-image's: ${name}`, () => {
    scope(() => {
      const [a, b] = [given(`picture.${name}.a`), given(`picture.${name}.b`)];
      near(psnr(a, b), number(`picture.${name}.psnr`), 1e-12, 'psnr');
      near(ssim(a, b), number(`picture.${name}.ssim`), 1e-12, 'ssim');
      near(ssim(b, a), number(`picture.${name}.ssim`), 1e-12, 'ssim');
      near(ssim(a, a), 1, 1e-15, 'equal pictures');
      near(ssim(a.add(5), b.add(5)), 1, 1e-15, 'clamped');
    });
  });

test('PSNR and SSIM are the same to the bit however the pictures are cut into batches', () => {
  scope(() => {
    // More pictures than a block of the tally and than a piece of SSIM.
    const [count, a] = [
      9000,
      normal(9000, 7 * 8, 3)
        .mul(0.5)
        .view(9000, 7, 8, 1),
    ];
    const b = a.add(
      normal(9000, 7 * 8, 4)
        .mul(0.1)
        .view(9000, 7, 8, 1),
    );
    const measured = [count, 1000, 77, 1].map((size) => {
      const [noise, likeness] = [new PsnrMeter(), new SsimMeter()];
      for (let at = 0; at < (size === 1 ? 40 : count); at += size)
        scope(() => {
          const part = (x: Tensor) => x.narrow(0, at, Math.min(size, count - at));
          noise.add(part(a), part(b));
          likeness.add(part(a), part(b));
        });
      if (size === 1) {
        noise.add(a.narrow(0, 40, count - 40), b.narrow(0, 40, count - 40));
        likeness.add(a.narrow(0, 40, count - 40), b.narrow(0, 40, count - 40));
      }
      return [noise.decibels(), likeness.value()];
    });
    for (const found of measured) assert.deepEqual(found, measured[0]);
    assert.ok(Number.isNaN(new SsimMeter().value()));
  });
});

test('a large picture alone is summed as it is in a batch, with many threads too', () => {
  setThreads(2);
  try {
    scope(() => {
      const rows = normal(40, 40_000, 5).square();
      const alone = cat(Array.from({ length: 40 }, (_, i) => sumEach(rows.narrow(0, i, 1))));
      assert.deepEqual(alone.toArray(), sumEach(rows).toArray());
      assert.deepEqual(sumEach(rows.view(40, 100, 400)).toArray(), sumEach(rows).toArray());
    });
  } finally {
    setThreads(1);
  }
});

test('copies of points lie in a manifold, and duplicates do not break it', () => {
  scope(() => {
    const points = normal(2500, 33, 6).mul(100).add(7);
    const same = points.narrow(0, 0, 1).add(1).expand(2100, 33); // their balls have no radius, and they fill more than a tile
    const set = new Manifold(cat([points, same]));
    assert.equal(set.covers(points), 1);
    assert.equal(set.covers(same.narrow(0, 0, 5)), 1);
    assert.equal(set.covers(same.narrow(0, 0, 5).add(1e-3)), 0, 'near is not equal');
    const other = new Manifold(cat([points.narrow(0, 100, 700), points.add(1e4)]));
    assert.deepEqual(precisionRecall(set, other), {
      precision: 700 / 3200,
      recall: set.count === 4600 ? other.covers(cat([points, same])) : 0,
    });
    other.dispose();
    set.dispose();
  });
});

test('a manifold outlives the features that it was made of', () => {
  const made = scope(() => {
    const x = normal(50, 4, 8);
    const set = new Manifold(x);
    x.dispose();
    return set;
  });
  scope(() => assert.equal(made.covers(normal(50, 4, 8)), 1));
  made.dispose();
});

test('a set contains its own points, up to rounding, and no others', () => {
  scope(() => {
    const own = normal(60, 8, 4);
    const set = new Manifold(own);
    assert.equal(set.contains(own.mul(1 + 1e-6)), 1);
    assert.equal(set.contains(own.add(normal(60, 8, 7).mul(1e-2))), 0, 'near is not the same');
    assert.equal(set.contains(normal(50, 8, 5)), 0);
    assert.equal(set.contains(cat([own.narrow(0, 0, 15), normal(45, 8, 6)])), 0.25);
    set.dispose();
  });
});

test('a kernel distance is a function of seed and features, and about 0 for one distribution', () => {
  scope(() => {
    const [a, b] = [normal(300, 8, 10), normal(300, 8, 11)];
    const once = kid(a, b, { seed: 3, subsets: 20, size: 100 });
    assert.deepEqual(kid(a, b, { seed: 3, subsets: 20, size: 100 }), once);
    assert.notEqual(kid(a, b, { seed: 4, subsets: 20, size: 100 }).mean, once.mean);
    assert.ok(Math.abs(once.mean) < 0.05, `${once.mean}`);
    assert.equal(kid(a, b, { seed: 0, subsets: 1 }).size, 300);
  });
});

/** Sets of one Gaussian, whose features have these variances and are not mixed: neither a distance nor its bias sees a rotation. */
const sampled = (rows: number, variances: Float64Array, seed: number) =>
  scope(() =>
    statistics(normal(rows, variances.length, seed).mul(tensor(variances.map(Math.sqrt), [variances.length], { dtype: 'float64' }))),
  );

const mean = (numbers: readonly number[]) => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;

test('the bias of a Frechet distance by the number of pictures, from sampled covariances, is what pairs of sets show', () => {
  const D = 48;
  for (const [name, variance, tolerance] of [
    ['flat', () => 1, 0.1],
    ['i^-1/2', (i: number) => i ** -0.5, 0.1],
    ['i^-1', (i: number) => 1 / i, 0.1],
    ['exponential', (i: number) => Math.exp((-10 * i) / D), 0.1],
    ['i^-2', (i: number) => i ** -2, 0.25], // a few directions have it all, and the pairs are no more exact
  ] as const) {
    const variances = Float64Array.from({ length: D }, (_, i) => variance(i + 1));
    for (const [n, m] of [
      [3, 3],
      [12, 12],
      [48, 48],
      [100, 8],
      [480, 4],
      [6, 480],
      [480, 480],
    ] as const) {
      const pairs = Array.from({ length: 10 }, (_, i) => [sampled(n, variances, 2 * i), sampled(m, variances, 2 * i + 1)] as const);
      const said = mean(pairs.map(([a]) => frechetBias(a, m)));
      near(said, mean(pairs.map(([a, b]) => frechet(a, b))), tolerance, `${name}, ${n} and ${m}`);
    }
  }
});

test('the bias of a Frechet distance by many pictures of a Gaussian that is known is what it is to second order', () => {
  const variances = values('bias.variances');
  const D = variances.length;
  const covariance = new Float64Array(D * D);
  for (const [i, value] of variances.entries()) covariance[i * D + i] = value;
  const known = { count: Number.POSITIVE_INFINITY, mean: new Float64Array(D), covariance };
  // |m1 - m2|^2 is tr S / n, and to second order the rest is 1/2 sum E|d_ij|^2 / (v_i + v_j), with d the error of the covariance, of which
  // E|d_ij|^2 = v_i v_j (1 + [i = j]) / n.
  let sum = 0;
  for (const v of variances) {
    sum += 1.25 * v;
    for (const w of variances) sum += (0.5 * v * w) / (v + w);
  }
  near(frechetBias(known, 1e6) * 1e6, sum, 1e-3, 'bias');
  near(frechetBias({ ...known, count: 1e6 }, 1e6) * 1e6, 2 * sum, 1e-3, 'bias of both');
  assert.equal(frechetBias(known, Number.POSITIVE_INFINITY), 0);
});

test('the bias of a Frechet distance is that of the oracle, and a warning has it', () => {
  const variances = values('bias.variances');
  const [n, m] = [...(expected.get('bias.counts')?.data ?? [])].map(Number) as [number, number];
  const reference = sampled(n, variances, 3);
  const bias = frechetBias(reference, m);
  near(bias, number('bias.simulated'), 0.1, 'bias');
  assert.equal(frechetBias(reference, 1), Number.POSITIVE_INFINITY);
  const constant = { ...reference, covariance: new Float64Array(reference.covariance.length) };
  assert.equal(frechetBias(constant, m), 0);
  assert.match(frechetWarning(reference, m) ?? '', /^60 pictures for 30 features: .*about 0\.(6|7)\d*, not 0.*or take 300 pictures/);
  assert.match(frechetWarning(reference, 30) ?? '', /leaves a covariance singular/);
  assert.match(frechetWarning(reference, 500) ?? '', /^90 pictures/, 'the reference can be the small one');
  assert.equal(frechetWarning({ ...reference, count: 300 }, 300), undefined);
});

test('features that cannot be measured are refused by name', () => {
  scope(() => {
    const x = normal(20, 4, 1);
    const failure = (run: () => unknown, pattern: RegExp) =>
      assert.throws(run, (error: Error) => error instanceof FailureError && pattern.test(error.message));
    const usage = (run: () => unknown, pattern: RegExp) =>
      assert.throws(run, (error: Error) => error instanceof UsageError && pattern.test(error.message));
    failure(() => kid(x, broken(30, 4), { seed: 0 }), /row 29 of the features of the set holds values that are not finite/);
    failure(() => kid(broken(30, 4), x, { seed: 0 }), /row 29 of the features of the reference/);
    failure(() => new Manifold(broken(3000, 4)), /row 2999/);
    const set = new Manifold(x);
    failure(() => set.covers(broken(9, 4)), /row 8/);
    failure(() => inceptionScore(broken(20, 4)), /row 19/);
    failure(() => statistics(broken(20, 4)), /column 0 of 20 rows/);
    usage(() => kid(x, normal(20, 5, 1), { seed: 0 }), /one has 4 features, the other 5/);
    usage(() => kid(x, x, { seed: 0, size: 21 }), /got 20 and 20/);
    usage(() => kid(x, x, { seed: 0, subsets: 0 }), /at least one subset/);
    usage(() => set.covers(normal(9, 5, 1)), /one has 4 features, the other 5/);
    usage(() => precisionRecall(set, new Manifold(normal(9, 5, 1))), /one has 4 features, the other 5/);
    usage(() => new Manifold(normal(3, 5, 1)), /more than 3 pictures in each set, got 3/);
    usage(() => inceptionScore(x.narrow(0, 0, 9)), /at least as many pictures, got 9/);
    usage(() => ssim(normal(1, 36, 1).view(1, 6, 6, 1), normal(1, 36, 1).view(1, 6, 6, 1)), /7 x 7 px, and the pictures have 6 x 6/);
    const negative = { count: 9, mean: new Float64Array(2), covariance: Float64Array.of(1, 2, 2, 1) };
    failure(() => frechet(negative, negative), /eigenvalue of -1/);
    set.dispose();
  });
});

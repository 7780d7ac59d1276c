import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { frechet } from '../../src/eval/frechet.js';
import { type Expected, openSamples, readReference, writeReference } from '../../src/eval/references.js';
import { DiskError } from '../../src/io/disk-error.js';
import { type NpzArray, npzNames, readNpz, writeNpz } from '../../src/io/npz.js';
import { setThreads } from '../../src/torch/index.js';

setThreads(1);

const FIXTURES = join(import.meta.dirname, '..', '..', '..', 'test', 'fixtures', 'eval');
const folder = mkdtempSync(join(tmpdir(), 'dsd-references-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const place = (name: string) => join(folder, name);

const adm = join(FIXTURES, 'adm.npz');
const inception: Expected = { extractor: 'inception-2015', dimension: 8, spatialDimension: 6 };
const floats = (data: Float64Array, ...shape: number[]): NpzArray => ({ dtype: 'float64', shape, data });

const refused = (kind: typeof UsageError | typeof FailureError, pattern: RegExp, run: () => unknown) =>
  assert.throws(run, (error: Error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.match(error.message, pattern);
    return true;
  });

test("ADM's statistics and pytorch-fid's, as NumPy writes them, are read", () => {
  const one = readReference(adm, inception);
  assert.equal(one.extractor, undefined);
  assert.equal(one.pooled.count, Number.POSITIVE_INFINITY);
  assert.deepEqual([one.pooled.mean.length, one.pooled.covariance.length], [8, 64]);
  assert.deepEqual([one.spatial?.mean.length, one.spatial?.covariance.length], [6, 36]);
  assert.equal(one.samples, true);
  assert.equal(one.features, undefined);
  assert.deepEqual(one.warnings, []);
  const other = readReference(join(FIXTURES, 'pytorch-fid.npz'), inception);
  assert.deepEqual([other.spatial, other.samples], [undefined, false]);
  assert.deepEqual(other.pooled.covariance, one.pooled.covariance);
  assert.ok(frechet(one.pooled, other.pooled) < 1e-9, 'the same set: one has its mean in float32');
});

test('what is written is read again, is the same file each time, and has the arrays that others look for', () => {
  const { pooled, spatial } = readReference(adm, inception);
  const features = { shape: [3, 8], data: Float32Array.from({ length: 24 }, (_, i) => i / 7) } as const;
  const samples = { shape: [2, 3, 4, 1], data: Uint8Array.from({ length: 24 }, (_, i) => i) } as const;
  const content = { extractor: 'nsfwjs-mixed7', pooled: { ...pooled, count: 5000 }, spatial, features, samples };
  writeReference(place('a.npz'), content);
  writeReference(place('b.npz'), content);
  assert.ok(readFileSync(place('a.npz')).equals(readFileSync(place('b.npz'))));
  const found = readReference(place('a.npz'), { ...inception, extractor: 'nsfwjs-mixed7' });
  assert.deepEqual({ ...found }, { ...content, spatial: { ...spatial, count: 5000 }, samples: true, warnings: [] });
  const pictures = openSamples(place('a.npz'));
  assert.deepEqual([pictures.shape, pictures.read(0, 2)], [samples.shape, samples.data]);
  pictures.close();
  assert.deepEqual(npzNames(place('a.npz')), ['arr_0', 'mu', 'sigma', 'mu_s', 'sigma_s', 'extractor', 'count', 'features']);
  writeReference(place('least.npz'), { extractor: 'é', pooled });
  assert.deepEqual(readReference(place('least.npz'), { extractor: 'é', dimension: 8 }), {
    ...{ extractor: 'é', pooled, spatial: undefined, features: undefined, samples: false, warnings: [] },
  });
});

test('a reference of another network is refused', () => {
  const { pooled } = readReference(adm, inception);
  writeReference(place('ours.npz'), { extractor: 'nsfwjs-mixed7', pooled });
  refused(UsageError, /statistics of 'nsfwjs-mixed7', and the pictures are described by 'inception-2015'/, () =>
    readReference(place('ours.npz'), inception),
  );
  refused(UsageError, /statistics of 'inception-2015' \(it names no network; such files are of that one\)/, () =>
    readReference(adm, { extractor: 'classifier', dimension: 8 }),
  );
  refused(UsageError, /statistics of 8 features \('mu'\), and 'inception-2015' has 2048/, () =>
    readReference(adm, { ...inception, dimension: 2048 }),
  );
  refused(UsageError, /statistics of 6 features \('mu_s'\), and 'inception-2015' has 2023/, () =>
    readReference(adm, { ...inception, spatialDimension: 2023 }),
  );
});

test('a file without the arrays says what it has', () => {
  writeNpz(place('samples.npz'), new Map([['arr_0', { dtype: 'uint8', shape: [1, 2, 2, 3], data: new Uint8Array(12) }]]));
  refused(UsageError, /lacks 'mu' and 'sigma', and has 'arr_0'\. It holds pictures/, () => readReference(place('samples.npz'), inception));
  writeNpz(place('half.npz'), new Map([['mu', floats(new Float64Array(8), 8)]]));
  refused(UsageError, /lacks 'sigma', and has 'mu'\.?$/, () => readReference(place('half.npz'), inception));
  writeNpz(place('none.npz'), new Map());
  refused(UsageError, /has nothing/, () => readReference(place('none.npz'), inception));
  refused(UsageError, /has no pictures: it lacks 'arr_0', and has 'mu'/, () => openSamples(place('half.npz')));
  writeFileSync(place('text.npz'), 'no archive');
  refused(FailureError, /text\.npz is not a valid \.npz file/, () => readReference(place('text.npz'), inception));
  assert.throws(() => readReference(place('missing.npz'), inception), DiskError);
});

test('statistics that are none are refused by name', () => {
  const whole = readNpz(adm);
  const sigma = whole.get('sigma') as NpzArray & { data: Float64Array };
  const spoiled = (change: (values: Float64Array) => void) => {
    const values = Float64Array.from(sigma.data);
    change(values);
    return { sigma: floats(values, 8, 8) };
  };
  const cases: [Record<string, NpzArray | undefined>, RegExp][] = [
    [{ mu: floats(Float64Array.of(1, 2, 3, 4, 5, 6, 7, Number.NaN), 8) }, /'mu' has values that are not finite/],
    [spoiled((s) => s.fill(Number.POSITIVE_INFINITY, 9, 10)), /'sigma' has values that are not finite/],
    [spoiled((s) => s.fill(-1, 9, 10)), /'sigma' has a negative variance, at 1/],
    [spoiled((s) => s.fill(0.3, 8, 9)), /'sigma' is not symmetric: 0\.3 at \(1, 0\)/],
    [spoiled((s) => s.fill(1e3, 8, 9).fill(1e3, 1, 2)), /'sigma' is no covariance: 1000 at \(1, 0\)/],
    [{ mu: floats(new Float64Array(8), 2, 4) }, /'mu' has the shape \(2, 4\) and 'sigma' \(8, 8\)/],
    [{ mu: floats(new Float64Array(7), 7) }, /not \(D\) and \(D, D\)/],
    [{ sigma: { dtype: 'uint8', shape: [8, 8], data: new Uint8Array(64) } }, /'sigma' is uint8, not float64/],
    [{ mu_s: undefined }, /has 'sigma_s' without the other/],
    [{ extractor: floats(new Float64Array(2), 2) }, /'extractor' is not UTF-8/],
    [{ count: { dtype: 'int64', shape: [], data: BigInt64Array.of(1n) } }, /'count' is not one whole number/],
    [{ features: { dtype: 'float32', shape: [2, 7], data: new Float32Array(14) } }, /'features' is float32 of the shape \(2, 7\)/],
    [{ features: { dtype: 'float32', shape: [1, 8], data: new Float32Array(8).fill(Number.NaN) } }, /'features' has values that are not/],
  ];
  for (const [changes, pattern] of cases) {
    const arrays = new Map(whole);
    for (const [name, array] of Object.entries(changes)) array ? arrays.set(name, array) : arrays.delete(name);
    writeNpz(place('bad.npz'), arrays);
    refused(FailureError, pattern, () => readReference(place('bad.npz'), inception));
  }
});

test('a covariance in float32 is read with a warning', () => {
  const arrays = new Map(readNpz(adm));
  const sigma = arrays.get('sigma') as NpzArray;
  arrays.set('sigma', { dtype: 'float32', shape: sigma.shape, data: Float32Array.from(sigma.data as Float64Array) });
  writeNpz(place('narrow.npz'), arrays);
  const found = readReference(place('narrow.npz'), inception);
  assert.match(found.warnings.join(), /narrow\.npz stores its covariance in float32/);
  assert.ok(frechet(found.pooled, readReference(adm, inception).pooled) < 1e-6);
});

test('samples that are no pictures are refused', () => {
  const cases: [NpzArray, RegExp][] = [
    [{ dtype: 'uint8', shape: [2, 4, 4], data: new Uint8Array(32) }, /'arr_0' has the shape \(2, 4, 4\)/],
    [{ dtype: 'uint8', shape: [1, 4, 4, 2], data: new Uint8Array(32) }, /1 or 3 channels/],
    [{ dtype: 'uint8', shape: [0, 4, 4, 3], data: new Uint8Array(0) }, /holds no rows of uint8: uint8 \[0,4,4,3\]/],
    [{ dtype: 'float32', shape: [1, 4, 4, 3], data: new Float32Array(48) }, /holds no rows of uint8: float32/],
  ];
  for (const [array, pattern] of cases) {
    writeNpz(place('odd.npz'), new Map([['arr_0', array]]));
    refused(FailureError, pattern, () => openSamples(place('odd.npz')));
  }
  const pictures = openSamples(adm);
  assert.deepEqual(pictures.shape, [3, 5, 5, 3]);
  pictures.close();
});

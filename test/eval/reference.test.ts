import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { key } from '../../src/core/random.js';
import { frechet } from '../../src/eval/frechet.js';
import { inceptionScore } from '../../src/eval/inception-score.js';
import { kid } from '../../src/eval/kid.js';
import { statistics } from '../../src/eval/moments.js';
import { Reference } from '../../src/eval/reference.js';
import { memory, randn, scope, setThreads, type Tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1);

const FULL = { name: 'full', distance: 'FID' };
const normal = (rows: number, columns: number, seed: number): Tensor => randn(key(seed, 'test'), 0, [rows, columns]);

test('a network with spatial features and logits gives all six figures, each that of its own function', async () => {
  const before = await liveTensors();
  scope(() => {
    const [real, fake] = [3, 4].map((seed) => ({
      pooled: normal(60, 6, seed),
      spatial: normal(60, 4, seed + 10),
      logits: normal(60, 5, seed + 20),
    }));
    const reference = Reference.ofPictures(FULL, real!, { seed: 8 });
    const found = reference.measure({
      ...fake!,
      pooled: fake!.pooled.narrow(0, 0, 40),
      spatial: fake!.spatial.narrow(0, 0, 40),
      logits: fake!.logits.narrow(0, 0, 40),
    });
    const near = (value: number | undefined, wanted: number) =>
      assert.ok(Math.abs((value ?? Number.NaN) - wanted) < 1e-9, `${value} ${wanted}`);
    near(found.frechet, frechet(statistics(fake!.pooled.narrow(0, 0, 40)), statistics(real!.pooled)));
    near(found.spatialFrechet, frechet(statistics(fake!.spatial.narrow(0, 0, 40)), statistics(real!.spatial)));
    assert.deepEqual(found.kid, kid(real!.pooled, fake!.pooled.narrow(0, 0, 40), { seed: 8 }));
    assert.deepEqual([found.name, found.extractor, found.count, found.inceptionScore?.splits], ['FID', 'full', 40, 10]);
    const exact = reference.measure(real!);
    assert.ok(exact.frechet < 1e-9 && exact.precision === 1 && exact.recall === 1);
    assert.deepEqual([exact.kid?.subsets, exact.kid?.size], [1, 60], 'every subset would be the whole of both');
    reference.dispose();
  });
  assert.equal(memory().live, before);
});

test('the Inception Score does not depend on samples that come class by class', () => {
  scope(() => {
    const reference = Reference.ofPictures(FULL, { pooled: normal(20, 2, 1) }, { seed: 2 });
    // 200 pictures, sure of their class, 20 of each of ten in turn: split as they come, every split would hold one class.
    const logits = scope(() => {
      const rows = normal(200, 10, 5).mul(0.01);
      for (let i = 0; i < 200; i++)
        rows
          .narrow(0, i, 1)
          .narrow(1, Math.floor(i / 20), 1)
          .add_(12);
      return rows;
    });
    assert.ok(inceptionScore(logits).mean < 1.1);
    const found = reference.measure({ pooled: normal(200, 2, 3), logits }).inceptionScore;
    assert.ok((found?.mean as number) > 6, `${found?.mean}`);
    reference.dispose();
  });
});

test('fewer pictures than splits have no score; too few, or none that is finite, are refused', () => {
  scope(() => {
    const reference = Reference.ofPictures(FULL, { pooled: normal(20, 2, 1) }, { seed: 2 });
    assert.equal(reference.measure({ pooled: normal(9, 2, 3), logits: normal(9, 4, 4) }).inceptionScore, undefined);
    assert.throws(() => reference.measure({ pooled: normal(3, 2, 3) }), UsageError);
    assert.throws(() => reference.measure({ pooled: normal(9, 3, 3) }), UsageError);
    const broken = normal(9, 2, 3);
    broken.narrow(0, 4, 1).fill_(Number.NaN);
    assert.throws(
      () => reference.measure({ pooled: broken }),
      (error: Error) =>
        error instanceof FailureError &&
        /row 4 of the features of the pictures that are judged holds values that are not finite/.test(error.message),
    );
    assert.match(reference.warning(19) ?? '', /^FID: 19 pictures for 2 features: .* of about 0\.\d+, not 0/);
    reference.dispose();
  });
});

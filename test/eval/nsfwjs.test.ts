import assert from 'node:assert/strict';
import { test } from 'node:test';
import { key } from '../../src/core/random.js';
import { openExtractor } from '../../src/eval/extractors.js';
import { noGrad, rand, scope, setThreads, tensor } from '../../src/torch/index.js';
import { distance, fixture, picture, tensorflow } from './inception-fixture.js';

setThreads(1);

const extractor = openExtractor('nsfwjs-mixed7', { device: 'cpu' });

test("mixed7 is TensorFlow.js's, and the oracle's", () => {
  assert.deepEqual([extractor.name, extractor.distance, extractor.dimension], ['nsfwjs-mixed7', 'FD-nsfwjs-mixed7', 768]);
  const [oracle, theirs] = [fixture('nsfwjs'), tensorflow()];
  for (const [i, side] of [
    [0, 48],
    [1, 320],
  ] as const)
    scope(() => {
      const { pooled, spatial, logits } = extractor.features(tensor(picture(i, side, side), [1, side, side, 3]));
      assert.deepEqual([pooled.shape, pooled.dtype, spatial, logits], [[1, 768], 'float32', undefined, undefined]);
      const found = pooled.toArray() as Float32Array;
      assert.ok(distance(found, oracle.get(`mixed7.${i}`)!) < 1e-5, 'the oracle');
      assert.ok(distance(found, theirs[i]!) < 1e-5, 'TensorFlow.js');
    });
});

test('features do not depend on the batch; many pictures take the memory of a few; a grey one is its colours', () => {
  noGrad(() =>
    scope(() => {
      const noise = rand(key(1, 'noise'), 0, [20, 16 * 16])
        .mul(255)
        .to({ dtype: 'uint8' })
        .view(20, 16, 16, 1);
      const before = process.resourceUsage().maxRSS;
      const all = extractor.features(noise).pooled;
      const grown = (process.resourceUsage().maxRSS - before) / 1024;
      assert.ok(grown < 500, `${grown} MiB for 20 pictures`);
      for (const i of [0, 15, 16, 19]) {
        const coloured = noise.narrow(0, i, 1).repeat(1, 1, 1, 3);
        const alone = extractor.features(coloured).pooled.toArray() as Float32Array;
        assert.ok(distance(all.narrow(0, i, 1).toArray() as Float32Array, alone) < 1e-5, `picture ${i}`);
      }
    }),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Grid, resizeBilinear } from '../../src/eval/resize.js';
import { full, scope, setThreads, tensor } from '../../src/torch/index.js';
import { fixture, picture } from './inception-fixture.js';

setThreads(1);

test("resizing is TensorFlow 1's, to the bit", () => {
  const cases = [...fixture('resize')];
  assert.equal(cases.length, 8);
  for (const [name, wanted] of cases) {
    const [i = '', shape = '', size = '', every = '', grid = ''] = name.split('.');
    const [height = 0, width = 0] = shape.split('x').map(Number);
    scope(() => {
      const step = Number(every);
      const pixels = tensor(picture(Number(i), height, width), [1, height, width, 3]);
      const found = resizeBilinear(pixels, Number(size), grid as Grid)
        .slice(1, 0, undefined, step)
        .slice(2, 0, undefined, step)
        .toArray();
      assert.deepEqual(found, wanted, name);
    });
  }
});

test('a picture of the size wanted stays as it is, and each picture of a batch is its own', () => {
  scope(() => {
    const pixels = tensor(picture(1, 9, 9), [1, 9, 9, 3]);
    for (const grid of ['origin', 'corners'] as const)
      assert.deepEqual(resizeBilinear(pixels, 9, grid).toArray(), Float32Array.from(pixels.toArray() as Uint8Array));
    const two = resizeBilinear(tensor(Uint8Array.of(...picture(0, 5, 5), ...picture(1, 5, 5)), [2, 5, 5, 3]), 8, 'origin');
    const one = resizeBilinear(tensor(picture(1, 5, 5), [1, 5, 5, 3]), 8, 'origin');
    assert.deepEqual(two.narrow(0, 1, 1).toArray(), one.toArray());
    // What is one colour stays that colour: weights sum to one exactly.
    assert.ok(
      resizeBilinear(full([1, 3, 7, 1], 211, { dtype: 'uint8' }), 50, 'origin')
        .eq(211)
        .all()
        .item(),
    );
  });
});

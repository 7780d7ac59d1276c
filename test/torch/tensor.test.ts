import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { arange, type DType, grad, ones, tensor, zeros } from '../../src/torch/index.js';

test('typed arrays come back as they went', () => {
  const arrays = [
    new Float32Array([1.5, -0, Number.NaN, Infinity]),
    new Float64Array([1e300, -1]),
    new BigInt64Array([2n ** 62n, -1n]),
    new Int32Array([-(2 ** 31), 7]),
    new Int16Array([-32768, 7]),
    new Int8Array([-128, 127]),
    new Uint8Array([0, 255]),
  ];
  for (const array of arrays) {
    const back = tensor(array, [array.length]).toArray();
    assert.equal(back.constructor, array.constructor);
    assert.deepEqual(back, array);
  }
});

test('any finite float32 survives, in any shape', () => {
  fc.assert(
    fc.property(fc.float32Array({ maxLength: 40 }), (array) => {
      assert.deepEqual(tensor(array, [1, array.length]).toArray(), array);
    }),
    { numRuns: 200 },
  );
});

test('a view of a buffer is read where it lies, and copied', () => {
  const array = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
  const t = tensor(array, [2]);
  array[0] = 5;
  assert.deepEqual([...t.toArray()], [1, 2]);
  const out = t.toArray();
  out[0] = 7;
  assert.deepEqual([...t.toArray()], [1, 2]);
});

test('half precisions are made from float32 and come back as float32', () => {
  for (const dtype of ['bfloat16', 'float16'] as const) {
    const t = tensor(new Float32Array([1, 1 / 3, -2]), [3], { dtype });
    assert.equal(t.dtype, dtype);
    const back = t.toArray();
    assert(back instanceof Float32Array);
    assert.equal(back[0], 1);
    assert(Math.abs((back[1] as number) - 1 / 3) < 2e-3);
  }
});

test('dtypes: made, asked, converted', () => {
  const all: DType[] = ['float32', 'float64', 'bfloat16', 'float16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool'];
  for (const dtype of all) {
    const t = ones([2], { dtype });
    assert.equal(t.dtype, dtype);
    assert.equal(t.to({ dtype: 'float32' }).sum().item(), 2);
  }
  assert.deepEqual([...tensor([0, 2], [2], { dtype: 'bool' }).toArray()], [0, 1]);
  assert.equal(tensor([1, 2]).dtype, 'float32');
});

test('what does not fit is refused', () => {
  assert.throws(() => tensor(new Float32Array(3), [2, 2]), { name: 'TypeError', message: /shape \[2, 2\] does not fit 3 elements/ });
  assert.throws(() => tensor(new Float32Array(3), [-3, -1]), { name: 'TypeError', message: /negative/ });
  assert.throws(() => tensor(new Float32Array(3), [1.5, 2]), { name: 'TypeError' });
  assert.throws(() => tensor(new Uint16Array(3) as unknown as Uint8Array, [3]), { name: 'TypeError', message: /typed array|Float32Array/ });
  assert.throws(() => tensor(new Int32Array(1), [1], { requiresGrad: true }), /floating point/);
});

test('empty tensors and those without dimensions', () => {
  assert.deepEqual(zeros([0, 3]).toArray(), new Float32Array(0));
  assert.deepEqual(tensor([], [0]).shape, [0]);
  assert.deepEqual(tensor([4], []).shape, []);
  assert.equal(tensor([4], []).item(), 4);
  assert.equal(tensor([4], []).numel, 1);
});

test('a transposed tensor is copied in its own order', () => {
  assert.deepEqual([...tensor([1, 2, 3, 4, 5, 6], [2, 3]).transpose(0, 1).toArray()], [1, 4, 2, 5, 3, 6]);
});

test('shape, size, device and text', () => {
  const t = zeros([2, 3]);
  assert.deepEqual([t.shape, t.ndim, t.numel, t.size(-1), t.device, t.isLeaf], [[2, 3], 2, 6, 3, 'cpu', true]);
  assert.throws(() => t.size(2), RangeError);
  assert.equal(String(t), 'Tensor(float32[2, 3] cpu)');
  t.dispose();
  assert.equal(String(t), 'Tensor(disposed)');
});

test('shapes are given as arguments or as one array', () => {
  const t = zeros([6]);
  assert.deepEqual(t.view(2, -1).shape, [2, 3]);
  assert.deepEqual(t.view([3, 2]).shape, [3, 2]);
  assert.deepEqual(t.view(2, 3).expand(4, -1, -1).shape, [4, 2, 3]);
  assert.deepEqual(t.repeat([2]).shape, [12]);
});

test('a range of integers that libtorch would divide by zero for is refused', () => {
  assert.throws(() => arange(0, 5, 0.5, { dtype: 'int64' }), /step.*must not be 0/);
  assert.throws(() => arange(0, 5, 0), /step must be nonzero/);
  assert.throws(() => arange(0, -(2 ** 63), -1, { dtype: 'int64' }), /'end' is beyond the safe integers/);
  assert.deepEqual([...arange(5, 0, -2, { dtype: 'int32' }).toArray()], [5, 3, 1]);
});

test('upload takes values of the same type and number, and leaves the array to its owner', () => {
  const t = zeros([2, 3]);
  const view = t.view(6);
  const array = new Float32Array([1, 2, 3, 4, 5, 6]);
  assert.equal(t.upload(array), t);
  array.fill(9);
  assert.deepEqual([...view.toArray()], [1, 2, 3, 4, 5, 6], 'the memory stays where it was');
  for (const [dtype, values] of [
    ['uint8', new Uint8Array([1, 255])],
    ['int32', new Int32Array([-1, 7])],
    ['int64', new BigInt64Array([2n ** 62n, -1n])],
    ['float64', new Float64Array([1e300, -0])],
  ] as const)
    assert.deepEqual(zeros([2], { dtype }).upload(values).toArray(), values);
  zeros([0]).upload(new Float32Array(0));
  const large = new Uint8Array(3_000_001).map((_, i) => i % 251);
  assert.deepEqual(zeros([large.length], { dtype: 'uint8' }).upload(large).toArray(), large);
  // A value that autograd has put by must not change without its knowledge.
  const [x, leaf] = [ones([2]), ones([2]).requiresGrad_(true)];
  const y = leaf.mul(x).sum();
  x.upload(new Float32Array(2));
  assert.throws(() => grad([y], [leaf]), /modified by an inplace operation/);
});

test('upload refuses what does not fit', () => {
  const refused = (message: RegExp, run: () => void) => assert.throws(run, { name: 'TypeError', message });
  const t = zeros([2, 3]);
  refused(/^upload: a Float64Array does not fit float32\[2, 3\]$/, () => t.upload(new Float64Array(6)));
  refused(/^upload: a Float32Array does not fit bfloat16\[6\]$/, () => zeros([6], { dtype: 'bfloat16' }).upload(new Float32Array(6)));
  refused(/^upload: 5 elements do not fit float32\[2, 3\]$/, () => t.upload(new Float32Array(5)));
  refused(/^upload: float32\[3, 2\] is a view/, () => t.transpose(0, 1).upload(new Float32Array(6)));
  refused(/^upload: data must be a typed array$/, () => t.upload([1] as never));
  refused(/^upload: data must be a Float32Array, /, () => t.upload(new Uint16Array(6) as never));
  t.dispose();
  refused(/^upload: .*disposed/, () => t.upload(new Float32Array(6)));
});

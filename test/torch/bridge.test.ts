import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engine, Op } from '../../src/torch/call.js';
import { dtypeCode } from '../../src/torch/dtype.js';
import { arange, conv2d, full, linear, memory, ones, scope, type Tensor, tensor, timeCall, where, zeros } from '../../src/torch/index.js';
import type { Value } from '../../src/torch/native.js';

const values = (result: Tensor) => [...result.toArray()].map(Number);
const one = (name: string, ...args: Value[]) => new Op(name).one(...(args as []));
const row = () => tensor([1, 2, 3]);

test('a tensor, an optional one, and lists of both', () => {
  const x = row();
  assert.deepEqual(values(one('aten::add.Tensor', x.handle, x.handle)), [2, 4, 6]);
  assert.deepEqual(values(one('aten::linear', ones([1, 3]).handle, ones([2, 3]).handle, null)), [3, 3]);
  assert.deepEqual(values(one('aten::linear', ones([1, 3]).handle, ones([2, 3]).handle, ones([2]).handle)), [4, 4]);
  assert.deepEqual(values(one('aten::cat', [x.handle, x.handle], 0)), [1, 2, 3, 1, 2, 3]);
  const index = tensor(new BigInt64Array([1n]));
  assert.deepEqual(values(one('aten::index.Tensor', arange(6).view(2, 3).handle, [null, index.handle])), [1, 4]);
});

test('a number is a double, a bigint an integer, true a boolean', () => {
  const whole = tensor(new Int32Array([1, 2]));
  assert.equal(whole.add(2).dtype, 'float32');
  assert.equal(whole.add(2n).dtype, 'int32');
  assert.equal(one('aten::add.Scalar', zeros([1], { dtype: 'bool' }).handle, true).dtype, 'bool');
  assert.throws(() => whole.add_(2.5), /aten::add_\.Scalar: .*can't be cast.*self=int32\[2\], other=2\.5/s);
  assert.throws(() => one('aten::add.Scalar', whole.handle, 2n ** 70n), /argument 'other' .* at most 64 bits/);
  assert.deepEqual(values(one('aten::clamp', row().handle, null, 2)), [1, 2, 2]);
  const [sum] = new Op('aten::_foreach_add.ScalarList').many([row().handle], [10]) as [Tensor];
  assert.deepEqual(values(sum), [11, 12, 13]);
});

test('integers, one or many, optional, or one for several', () => {
  assert.deepEqual(arange(24).view(2, 3, 4).permute(2, 0, 1).shape, [4, 2, 3]);
  assert.deepEqual(values(arange(6).view(2, 3).argmax(1)), [2, 2]);
  assert.equal(Number(arange(6).view(2, 3).argmax().item()), 5);
  assert.deepEqual(values(arange(6).view(2, 3).sum()), [15]);
  assert.deepEqual(values(arange(6).view(2, 3).sum([0])), [3, 5, 7]);
  assert.deepEqual(one('aten::avg_pool2d', ones([1, 1, 4, 4]).handle, 2, 2).shape, [1, 1, 2, 2]);
  assert.deepEqual(one('aten::narrow', row().handle, 0n, 1n, 2n).shape, [2]);
  for (const wrong of [1.7, Number.NaN, Infinity, 2 ** 53, '1', true, {}, 2n ** 64n])
    assert.throws(() => one('aten::narrow', row().handle, 0, wrong as number, 1), {
      name: 'TypeError',
      message: /^aten::narrow: argument 'start' .*must be/,
    });
});

test('floats, booleans, strings and their optional and listed forms', () => {
  assert.deepEqual(values(one('aten::nan_to_num', tensor([Number.NaN, Infinity]).handle, 7, 8)), [7, 8]);
  assert.deepEqual(values(one('aten::nan_to_num', tensor([Number.NaN, 1]).handle, null)), [0, 1]);
  const up = one('aten::upsample_nearest2d.vec', ones([1, 1, 2, 2]).handle, null, [2, 2]);
  assert.deepEqual(up.shape, [1, 1, 4, 4]);
  const [sorted] = new Op('aten::sort.stable').many(tensor([2, 1]).handle, true, 0, false) as [Tensor];
  assert.deepEqual(values(sorted), [1, 2]);
  const x = ones([2, 3]);
  const [, mean, rstd] = new Op('aten::native_layer_norm').many(x.handle, [3], null, null, 1e-5) as [Tensor, Tensor, Tensor];
  const parts = new Op('aten::native_layer_norm_backward').call(x.handle, x.handle, [3], mean.handle, rstd.handle, undefined, undefined, [
    true,
    false,
    false,
  ]);
  assert.deepEqual((parts as unknown[]).slice(1), [null, null], 'a gradient that was not asked for is null');
  assert.notDeepEqual(values(row().gelu('tanh')), values(row().gelu()));
  assert.deepEqual(values(one('aten::linalg_svdvals', ones([1, 1]).handle, null)), [1]);
  assert.throws(() => row().gelu('exact' as 'none'), /aten::gelu: approximate argument must be either none or tanh/);
  assert.throws(() => one('aten::sum.dim_IntList', row().handle, [0], 1), {
    name: 'TypeError',
    message: /'keepdim' \(bool\) must be true or false, found 1/,
  });
});

test('dtype, layout, memory format and device', () => {
  const x = one('aten::zeros', [2], dtypeCode('float64'), 0, 'cpu');
  assert.equal(x.dtype, 'float64');
  assert.equal(one('aten::clone', x.handle, 0).dtype, 'float64');
  assert.throws(() => one('aten::zeros', [2], 999), { name: 'TypeError', message: /'dtype' .*not the code of a dtype/ });
  assert.throws(() => one('aten::zeros', [2], undefined, 1), { name: 'TypeError', message: /'layout'/ });
  assert.throws(() => one('aten::clone', x.handle, 9), { name: 'TypeError', message: /'memory_format'/ });
  for (const wrong of ['tpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cuda:1000', ''])
    assert.throws(() => one('aten::zeros', [2], undefined, undefined, wrong), {
      name: 'TypeError',
      message: /must be 'cpu', 'cuda' or 'cuda:N'/,
    });
  assert.throws(() => zeros([1], { dtype: 'float33' as 'float32' }), { name: 'TypeError', message: /unknown dtype "float33"/ });
});

test('a generator can only be left out, a storage not be passed at all', () => {
  const x = zeros([2]);
  new Op('aten::normal_').call(x.handle, 0, 1, null);
  new Op('aten::normal_').call(x.handle, 0, 1);
  assert.throws(() => new Op('aten::normal_').call(x.handle, 0, 1, 'g'), {
    name: 'TypeError',
    message: /'generator' .*cannot be passed from JavaScript/,
  });
  assert.throws(() => new Op('aten::set_.source_Storage').call(x.handle, 's'), {
    name: 'TypeError',
    message: /cannot be passed from JavaScript/,
  });
});

test('results: nothing, numbers, booleans, lists', () => {
  assert.equal(new Op('aten::equal').call(row().handle, row().handle), true);
  assert.equal(row().sum().item(), 6);
  assert.equal(tensor(new BigInt64Array([2n ** 60n])).item(), 2n ** 60n);
  assert.equal(new Op('aten::add_.Scalar').call(row().handle, 1), undefined, 'in place: the argument itself');
  assert.deepEqual(
    arange(6)
      .chunk(3)
      .map((part) => values(part)),
    [
      [0, 1],
      [2, 3],
      [4, 5],
    ],
  );
});

test('what is not a live tensor is refused by name', () => {
  const x = row();
  const gone = row();
  gone.dispose();
  const forged = x.handle + 2 ** 24; // the same slot, another generation
  const cases: [unknown, RegExp][] = [
    [{}, /found an object/],
    [null, /found null/],
    ['x', /found 'x'/],
    [gone, /found a tensor that was disposed/],
    [x.handle + 1, /found a tensor that was disposed/],
    [forged, /found a tensor that was disposed/],
    [0, /found 0/],
    [Symbol('s'), /found a symbol/],
    [[x.handle], /found \[float32\[3\]\]/],
    [undefined, /is missing/],
  ];
  for (const [wrong, message] of cases) {
    assert.throws(() => x.matmul(wrong as Tensor), { name: 'TypeError', message });
    assert.throws(() => x.matmul(wrong as Tensor), { name: 'TypeError', message: /^aten::matmul: argument 'other' \(Tensor\)/ });
  }
  assert.throws(() => gone.repeatInterleave(2), { name: 'TypeError', message: /^aten::repeat_interleave/ });
});

test('errors name the operator and the shapes', () => {
  assert.throws(() => zeros([2, 3]).matmul(zeros([2, 3])), {
    name: 'Error',
    code: 'ERR_TORCH',
    message: /^aten::matmul: .*cannot be multiplied.*; called with self=float32\[2, 3\], other=float32\[2, 3\]$/,
  });
  assert.throws(() => linear(zeros([2, 3]), zeros([4, 5])), /aten::linear: .*float32\[4, 5\]/);
  assert.throws(() => zeros([2]).view(3), /aten::view: .*size=\[3\]/);
  assert.throws(() => zeros([-1]), /aten::zeros: .*negative/);
  assert.throws(() => zeros([2, 2]).item(), /aten::item|_local_scalar_dense/);
  assert.throws(() => zeros([2 ** 32, 2 ** 32]), /aten::zeros/);
  assert.throws(() => zeros([2], { device: 'cuda:31' }), /cuda/i);
  for (const leaf of [ones([2], { requiresGrad: true })]) assert.throws(() => leaf.add_(1), /aten::add_\.Scalar: .*leaf.*in-place/);
});

test('out of memory is told apart, with the bytes', () => {
  assert.throws(() => zeros([2 ** 45]), {
    code: 'ERR_TORCH_MEMORY',
    message: /out of memory in aten::zeros: .*140737488355328 bytes.*size=\[35184372088832\]/,
  });
});

test('what is no flat array of numbers makes no NaN', () => {
  const wrong: [unknown, RegExp][] = [
    [[[1, 2]], /found an array at 0/],
    [[1, 'x'], /found string at 1/],
    [[1n], /found bigint/],
    [[1, undefined, 3], /found undefined at 1/],
    [5, /found number/],
    [null, /found null/],
  ];
  for (const [data, message] of wrong) {
    assert.throws(() => tensor(data as number[]), { name: 'TypeError', message });
    assert.throws(() => tensor(data as number[]), { message: /^tensor: data must be/ });
  }
  assert.throws(() => tensor([1], [1.5]), { name: 'TypeError', message: /^tensor: argument 'shape'/ });
  assert.throws(() => tensor([1], [2]), { message: 'tensor: shape [2] does not fit 1 elements' });
});

test('typed arrays on memory that is shared, was resized or is gone', () => {
  assert.deepEqual(values(tensor(new Float32Array(new SharedArrayBuffer(8)).fill(3))), [3, 3]);
  const gone = new Float32Array(2);
  const shape = Object.defineProperty([2], 0, {
    get() {
      structuredClone(gone.buffer, { transfer: [gone.buffer] });
      return 2;
    },
  });
  assert.throws(() => tensor(gone, shape), { message: 'tensor: shape [2] does not fit 0 elements' });
});

test('sizes that libtorch multiplies or cuts off without a look are refused', () => {
  for (const groups of [2 ** 32, 2 ** 33, -(2 ** 32), 2n ** 62n])
    assert.throws(() => conv2d(ones([1, 4, 5, 5]), ones([4, 4, 3, 3]), null, 1, 1, 1, groups as number), {
      name: 'TypeError',
      message: /^aten::conv2d: argument 'groups'/,
    });
  for (const [x, times, dim] of [
    [ones([3, 4]), 2n ** 62n, 1],
    [ones([4096]), 2 ** 52, undefined],
    [zeros([0, 4096]), 2 ** 52, 1],
  ] as const)
    assert.throws(() => x.repeatInterleave(times as number, dim), {
      name: 'TypeError',
      message: /^aten::repeat_interleave: argument 'repeats'/,
    });

  const claimed = new Array(2 ** 27);
  assert.throws(() => ones([2]).index(claimed), { name: 'TypeError', message: /'indices' .* at most 1048576 elements/ });
});

test('a number in where() leaves no tensor, whether it works or not', () => {
  scope(() => {
    const condition = zeros([2], { dtype: 'bool' });
    const [two, three] = [ones([2]), ones([3])];
    const before = memory().live;
    assert.throws(() => where(condition, 1, three), /aten::where/);
    assert.throws(() => where(condition, three, 1), /aten::where/);
    assert.throws(() => where(condition, 1, {} as Tensor), TypeError);
    assert.equal(memory().live, before);
    where(condition, 1, two).dispose();
    assert.equal(memory().live, before);
  });
});

test('operators are looked up by name', () => {
  assert.equal(new Op('aten::add.Tensor').exists, true);
  assert.equal(new Op('aten::no_such').exists, false);
  assert.throws(() => new Op('aten::no_such').call(), /this libtorch .* has no operator 'aten::no_such'/);
  assert.throws(() => new Op('no namespace').call(), /has no operator/);
  assert.match(engine().schema('aten::relu') ?? '', /relu\(Tensor self\) -> Tensor/);
  assert.throws(() => engine().call(1e9), { name: 'TypeError' });
  assert.throws(() => engine().call(-1), { name: 'TypeError' });
  assert.throws(() => full([1], 1).neg.call({ handle: 'x' }), { name: 'TypeError' });
  assert.throws(() => new Op('aten::neg').call(row().handle, 1, 2), {
    name: 'TypeError',
    message: /takes at most 1 arguments, got 3|takes at most 1/,
  });
});

test('a getter that throws passes its own error on', () => {
  const trap = Object.defineProperty([1, 2], 1, {
    get() {
      throw new RangeError('mine');
    },
  });
  assert.throws(() => zeros(trap), { name: 'RangeError', message: 'mine' });
});

test('an array that frees tensors while it is read does no harm', () => {
  const x = row();
  const trap = [x.handle, x.handle];
  Object.defineProperty(trap, 1, {
    get() {
      x.dispose();
      return row().handle;
    },
  });
  assert.deepEqual(values(one('aten::cat', trap, 0)), [1, 2, 3, 1, 2, 3]);
});

test('timeCall calls an operator as often as it is told, and leaves no tensor', () => {
  const total = zeros([1]);
  const { live } = memory();
  assert.ok(timeCall('aten::add_.Tensor', [total, ones([1])], 5) > 0);
  assert.equal(total.item(), 5);
  assert.ok(timeCall('aten::cat', [[total, total]], 1) > 0);
  assert.equal(memory().live, live + 1); // ones([1])
  assert.throws(() => timeCall('aten::add.Tensor', [total], 1), /aten::add\.Tensor: argument 'other' .*missing/);
  assert.throws(() => timeCall('aten::neg', [total], 0), TypeError);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { integer, key, normal, uniform } from '../../src/core/random.js';
import { rand, randn, setThreads, tensor } from '../../src/torch/index.js';

const shapes: number[][] = [[1, 1], [3, 5], [2, 4, 4], [5], [2, 0], [0, 3], [1, 2, 3, 7]];

test('draws equal core/random.ts: uniform bit for bit, normal to rounding', () => {
  const images = fc.oneof(
    fc.nat(1000),
    fc.constant(2 ** 32 - 1),
    fc.constant(2 ** 40 + 7),
    fc.maxSafeNat().map((n) => Math.floor(n / 2)),
  );
  fc.assert(
    fc.property(
      fc.maxSafeNat(),
      fc.constantFrom('noise', 'time', ''),
      images,
      fc.constantFrom(...shapes),
      (seed, purpose, first, shape) => {
        const k = key(seed, purpose);
        const elements = shape.slice(1).reduce((a, b) => a * b, 1);
        const [u, n] = [rand(k, first, shape).toArray(), randn(k, first, shape).toArray()];
        for (let i = 0; i < u.length; i++) {
          const [image, element] = [first + Math.floor(i / elements), i % elements];
          assert.equal(u[i], uniform(k, image, element));
          assert(Math.abs((n[i] as number) - normal(k, image, element)) < 1e-6);
        }
      },
    ),
    { numRuns: 100 },
  );
});

test('a batch draws what its parts draw, on any number of threads', () => {
  const k = key(1, 'noise');
  const whole = randn(k, 10, [64, 1000]).toArray() as Float32Array;
  setThreads(1);
  const alone = randn(k, 10, [64, 1000]).toArray();
  setThreads(2);
  assert.deepEqual(alone, whole);
  assert.deepEqual(randn(k, 40, [34, 1000]).toArray(), whole.slice(30 * 1000));
});

test('the first image may be a tensor', () => {
  const k = key(1, 'noise');
  assert.deepEqual(randn(k, tensor(new BigInt64Array([7n]), []), [2, 3]).toArray(), randn(k, 7, [2, 3]).toArray());
  assert.throws(() => randn(k, tensor([7], []), [2, 3]), /int64/);
});

test('drawn in float32, then converted', () => {
  const k = key(1, 'noise');
  assert.deepEqual(randn(k, 0, [2, 3], { dtype: 'float64' }).toArray(), Float64Array.from(randn(k, 0, [2, 3]).toArray() as Float32Array));
  assert.deepEqual(randn(k, 0, [2, 3], { dtype: 'bfloat16' }).toArray(), randn(k, 0, [2, 3]).to({ dtype: 'bfloat16' }).toArray());
});

test('the numbers are as they should be distributed', () => {
  const n = randn(key(3, 'x'), 0, [100, 10_000]);
  assert(Math.abs(Number(n.mean().item())) < 4e-3);
  assert(Math.abs(Number(n.std().item()) - 1) < 3e-3);
  assert(Math.abs(Number(n.pow(4).mean().item()) - 3) < 0.04);
  const u = rand(key(3, 'x'), 0, [100, 10_000]);
  assert(Math.abs(Number(u.mean().item()) - 0.5) < 1.5e-3);
  assert(Number(u.min().item()) >= 0 && Number(u.max().item()) < 1);
  assert(integer(key(3, 'x'), 0, 0, 10) < 10);
});

test('what is no draw is refused', () => {
  const k = key(1, 'x');
  assert.throws(() => randn(k, -1, [2]), /must not be negative/);
  assert.throws(() => randn(k, 1.5, [2]), { name: 'TypeError' });
  assert.throws(() => randn(k, 0, []), /at least one dimension/);
  assert.throws(() => randn(k, 0, [2], { dtype: 'int64' }), /floating point/);
  assert.throws(() => randn({ lo: -1, hi: 0 }, 0, [2]), /uint32/);
  assert.throws(() => randn(k, 0, [-2]), /negative/);
});

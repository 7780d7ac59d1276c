/** CUDA graphs, and uploads that wait for nothing. What needs a device is skipped without one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cudaAvailable,
  emptyCache,
  Graph,
  grad,
  isOutOfMemory,
  markWork,
  memory,
  noGrad,
  ones,
  Replayed,
  rand,
  randn,
  scope,
  synchronize,
  type Tensor,
  tensor,
  workAhead,
  zeros,
} from '../../src/torch/index.js';
import { liveTensors } from './live.js';

const device = 'cuda';
const onCuda = { skip: cudaAvailable() ? false : 'no CUDA device' };
const values = (x: Tensor): number[] => [...(x.toArray() as Float32Array)];

test('on a CPU nothing can be captured, and the error says so before anything runs', () => {
  assert.equal(Graph.supports('cpu'), false);
  assert.equal(Graph.supports('cuda'), cudaAvailable());
  const run = () => assert.fail('it ran');
  assert.throws(() => Graph.capture('cpu', run), /^Error: Graph\.capture: .*CUDA device/);
  if (!cudaAvailable()) assert.throws(() => Graph.capture('cuda', run), Error);
  scope(() => assert.deepEqual(values(ones([2]).add(1)), [2, 2])); // all is as before
});

test('a function is called each time where it cannot be captured; what it gives is the caller’s', async () => {
  const before = await liveTensors();
  let calls = 0;
  const square = new Replayed((x: Tensor) => {
    calls++;
    return scope(() => x.mul(x).add(1));
  });
  for (const value of [1, 2, 3]) {
    const x = tensor([value]);
    const y = square.call(x);
    assert.deepEqual(values(y), [value * value + 1]);
    x.dispose();
    y.dispose();
  }
  assert.equal(calls, 3);
  square.dispose();
  assert.equal(memory().live, before);
});

test('memory that is held for reuse is given back on demand', () => {
  if (cudaAvailable()) {
    scope(() => void zeros([64, 2 ** 20], { device }));
    synchronize();
  }
  const held = memory().cudaReserved;
  emptyCache();
  const { cudaReserved, cudaAllocated } = memory();
  if (cudaAvailable()) assert.ok(held - cudaReserved >= 2 ** 28 && cudaReserved >= cudaAllocated, `${held}, then ${cudaReserved}`);
  else assert.deepEqual([held, cudaReserved], [0, 0]);
});

test('a processor has no work before it', () => {
  markWork('cpu');
  assert.equal(workAhead(), 0);
  assert.equal(workAhead(0), 0);
  assert.throws(() => workAhead(-1), { name: 'TypeError', message: /^workAhead: most must not be negative, found -1/ });
});

test('a replay computes with the values of the time, gradients and draws included', onCuda, () => {
  const [x, w, first] = [zeros([4], { device }), ones([4], { device }).requiresGrad_(true), zeros([], { device, dtype: 'int64' })];
  const step = () => {
    const drawn = rand({ lo: 1, hi: 2 }, first, [4], { device });
    const loss = w.mul(x).square().sum().add(drawn.sum());
    return { loss: loss.detach(), gradient: grad([loss], [w])[0] as Tensor, drawn };
  };
  scope(() => void step());
  // The scope around ends before the graph is used.
  const graph = scope(() => Graph.capture(device, step));
  for (const value of [1, 2, 5]) {
    x.upload(new Float32Array(4).fill(value));
    first.upload(BigInt64Array.of(BigInt(value)));
    graph.replay();
    const wanted = rand({ lo: 1, hi: 2 }, value, [4]);
    assert.deepEqual(values(graph.result.gradient), Array(4).fill(2 * value * value));
    assert.deepEqual(values(graph.result.drawn), values(wanted));
    assert.ok(Math.abs(Number(graph.result.loss.item()) - 4 * value * value - values(wanted).reduce((a, b) => a + b)) < 1e-4);
  }
  // In place, once for each replay.
  const count = zeros([1], { device });
  const counting = Graph.capture(device, () => void count.add_(1));
  for (let i = 0; i < 3; i++) counting.replay();
  assert.deepEqual(values(count), [3]);
  counting.dispose();
  graph.dispose();
  graph.dispose();
  assert.ok(graph.result.loss.disposed);
  assert.throws(() => graph.replay(), /Graph\.replay: the graph was disposed/);
});

test('what cannot be captured is an error that says what it was; all goes on after it', onCuda, async () => {
  const x = ones([1000], { device });
  const fine = () => x.mul(2).sum();
  scope(() => void fine());
  const before = await liveTensors();
  const failures: [RegExp, () => unknown][] = [
    [/item.*captur/is, () => fine().item()],
    [/captur/i, () => fine().toArray()],
    [/tensor: values of a typed array cannot be captured/, () => x.add(tensor([1], [1], { device }))],
    [/upload: values of a typed array cannot be captured/, () => x.upload(new Float32Array(1000))],
    [/a capture is under way already/, () => Graph.capture(device, fine)],
    [/captur/i, () => x.add(ones([1000]).to({ device }))], // memory that is not pinned: libtorch waits for the copy
  ];
  for (const [message, run] of failures) {
    assert.throws(
      () =>
        Graph.capture(device, () => {
          fine();
          run();
          return fine();
        }),
      message,
    );
    assert.equal(Number(fine().item()), 2000);
    const graph = Graph.capture(device, fine);
    graph.replay();
    assert.equal(Number(graph.result.item()), 2000);
    graph.dispose();
  }
  const own = new RangeError('mine');
  assert.throws(
    () =>
      Graph.capture(device, () => {
        fine();
        throw own;
      }),
    (error) => error === own,
  );
  assert.equal(await liveTensors(), before, 'nothing is left of the failed ones');
});

test('memory that runs out during a capture is said to have, and comes back', onCuda, () => {
  const small = () => ones([1000], { device }).sum();
  scope(() => void small());
  assert.throws(
    () => Graph.capture(device, () => Array.from({ length: 1000 }, () => ones([2 ** 30], { device })).length),
    (error) => isOutOfMemory(error),
  );
  // Captures end the memory of those that are gone.
  Graph.capture(device, small).dispose();
  Graph.capture(device, small).dispose();
  assert.ok(memory().cudaReserved < 2 ** 30, `${memory().cudaReserved} bytes are held`);
});

test('a function is replayed with new values, for each shape on its own', onCuda, async () => {
  const weight = randn({ lo: 5, hi: 5 }, 0, [16, 16], { device });
  const layer = (x: Tensor, y: Tensor): Tensor => scope(() => x.matmul(weight).add(y).softmax(-1));
  scope(() => layer(ones([1, 16], { device }), ones([16], { device })));
  const before = await liveTensors();
  let calls = 0;
  const replayed = new Replayed((x: Tensor, y: Tensor) => {
    calls++;
    return layer(x, y);
  });
  noGrad(() =>
    scope(() => {
      for (let i = 0; i < 20; i++) {
        const rows = 1 + (i % 2);
        const x = randn({ lo: i, hi: 0 }, 0, [rows, 16], { device });
        const y = randn({ lo: i, hi: 1 }, 0, [16], { device });
        const [found, wanted] = [replayed.call(x, y), layer(x, y)];
        assert.deepEqual(values(found), values(wanted));
      }
      assert.equal(calls, 4, 'once as it is and once captured, for each of two shapes');
      for (const rows of [3, 4, 5, 6, 7]) for (let i = 0; i < 3; i++) replayed.call(ones([rows, 16], { device }), ones([16], { device }));
    }),
  );
  replayed.dispose();
  assert.equal(await liveTensors(), before);

  // What cannot be captured is called.
  const reads = new Replayed((x: Tensor) => x.mul(Number(x.item())));
  for (const value of [2, 3, 4]) scope(() => assert.deepEqual(values(reads.call(tensor([value], [1], { device }))), [value * value]));
  assert.match(String(reads.uncaptured), /captur/i);
});

test('uploads are in order with the work around them, however far the device is behind', onCuda, () => {
  for (const size of [8, 1 << 20]) {
    const [target, sum] = [zeros([size], { device }), zeros([size], { device })];
    const busy = randn({ lo: 1, hi: 1 }, 0, [2048, 2048], { device });
    const array = new Float32Array(size);
    for (let i = 1; i <= 40; i++) {
      scope(() => void busy.matmul(busy).matmul(busy)); // the device falls behind
      target.upload(array.fill(i));
      sum.add_(target);
      const made = tensor(array, [size], { device });
      array.fill(-1000); // it was read
      sum.add_(made);
      made.dispose();
    }
    assert.deepEqual(new Set(sum.toArray() as Float32Array), new Set([2 * ((40 * 41) / 2)]));
  }
});

test('the program knows how far it is ahead of the device', onCuda, () => {
  synchronize();
  const busy = randn({ lo: 1, hi: 1 }, 0, [4096, 4096], { device });
  for (let i = 0; i < 6; i++) {
    scope(() => void busy.matmul(busy).matmul(busy).matmul(busy));
    markWork(device);
  }
  assert.ok(workAhead() <= 6);
  assert.ok(workAhead(2) <= 2);
  assert.equal(workAhead(0), 0);
});

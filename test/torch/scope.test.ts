import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { grad, isGradEnabled, keep, memory, noGrad, ones, scope, type Tensor, zeros } from '../../src/torch/index.js';

const live = () => memory().live;

test('a scope frees all that was made inside', () => {
  const before = live();
  let inner: Tensor | undefined;
  scope(() => {
    inner = ones([3]).add(1).mul(2);
    assert.equal(live(), before + 3);
  });
  assert.equal(live(), before);
  assert.equal(inner?.disposed, true);
  assert.throws(() => inner?.neg(), { name: 'TypeError', message: /aten::neg: .*disposed/ });
});

test('what is returned stays: a tensor, or arrays, objects and maps of them', () => {
  const before = live();
  const one = scope(() => ones([1]).add(1));
  const many = scope(() => ({
    list: [ones([1]), [ones([2])]],
    map: new Map([['a', ones([3])]]),
    nothing: null,
    text: 'x',
    gone: ones([1]).shape,
  }));
  assert.equal(live(), before + 4);
  const cyclic = scope(() => {
    const loop: { self?: unknown; t: Tensor } = { t: ones([1]) };
    loop.self = loop;
    return loop;
  });
  assert.equal(cyclic.t.disposed, false);
  for (const t of [one, cyclic.t, many.list[0] as Tensor, (many.list[1] as Tensor[])[0] as Tensor, many.map.get('a') as Tensor])
    t.dispose();
  assert.equal(live(), before);
});

test('nested scopes hand what they return to the scope around', () => {
  const before = live();
  let middle: Tensor | undefined;
  const outer = scope(() => {
    middle = scope(() => scope(() => ones([2]).add(1)).add(1));
    assert.equal(middle.disposed, false);
    return middle.add(1);
  });
  assert.equal(middle?.disposed, true);
  assert.deepEqual([...outer.toArray()], [4, 4]);
  outer.dispose();
  assert.equal(live(), before);
});

test('a tensor from outside may be returned and is not freed', () => {
  const outside = ones([1]);
  assert.equal(
    scope(() => scope(() => outside)),
    outside,
  );
  scope(() => {
    outside.add(1);
  });
  assert.equal(outside.disposed, false);
  outside.dispose();
  outside.dispose();
});

test('keep takes a tensor out of all scopes', () => {
  let kept: Tensor | undefined;
  scope(() => {
    scope(() => {
      kept = keep(ones([1]));
    });
  });
  assert.equal(kept?.disposed, false);
  kept?.dispose();
});

test('dispose inside a scope is fine, its slot may be used again', () => {
  const before = live();
  const last = scope(() => {
    for (let i = 0; i < 100; i++) zeros([4]).dispose();
    return zeros([1]);
  });
  assert.equal(last.disposed, false);
  last.dispose();
  assert.equal(live(), before);
});

test('an exception frees everything and comes through', () => {
  const before = live();
  assert.throws(
    () =>
      scope(() => {
        ones([1]);
        throw new Error('mine');
      }),
    /mine/,
  );
  assert.equal(live(), before);
});

test('a scope or noGrad that returns a promise is refused', () => {
  const before = live();
  assert.throws(() => scope(async () => ones([1])), { name: 'TypeError', message: /promise/ });
  assert.throws(() => noGrad(async () => 1), { name: 'TypeError', message: /promise/ });
  assert.equal(isGradEnabled(), true);
  assert.equal(live(), before);
});

test('noGrad records nothing, and ends with an exception too', () => {
  const w = ones([1], { requiresGrad: true });
  assert.equal(noGrad(() => w.mul(2)).requiresGrad, false);
  assert.throws(() =>
    noGrad(() => {
      throw new Error('x');
    }),
  );
  assert.equal(isGradEnabled(), true);
  assert.equal(w.mul(2).requiresGrad, true);
});

test('a thousand steps leave nothing behind', () => {
  const w = ones([8, 8], { requiresGrad: true });
  const before = live();
  for (let step = 0; step < 1000; step++) scope(() => grad([w.matmul(w).sum()], [w]));
  for (let step = 0; step < 1000; step++) scope(() => grad([w.matmul(w).sum()], [w])[0]?.dispose());
  assert(live() <= before + 1000, `${live() - before} tensors are left`);
  const after = live();
  for (let step = 0; step < 100; step++)
    scope(() => {
      grad([w.matmul(w).sum()], [w]);
    });
  assert.equal(live(), after);
});

test('what a scope returns may be long', () => {
  const result = scope(() => [...Array.from({ length: 300_000 }, (_, i) => i), ones([1])]);
  assert.equal((result.at(-1) as Tensor).disposed, false);
  (result.at(-1) as Tensor).dispose();
});

test('a stack that ran full within scopes leaves none open', () => {
  const before = live();
  const deeper = (): void =>
    scope(() => {
      ones([1]);
      deeper();
    });
  for (let i = 0; i < 10; i++) assert.throws(deeper, RangeError);
  assert.equal(live(), before);
  assert.equal(scope(() => scope(() => ones([1]))).disposed, false);
});

// The rest need a collector that can be called, and a process of their own.
const run = (code: string) =>
  execFileSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '-e', code.replaceAll('TORCH', new URL('../../src/torch/index.js', import.meta.url).href)],
    {
      encoding: 'utf8',
      cwd: fileURLToPath(new URL('.', import.meta.url)),
    },
  ).trim();

test('tensors outside of scopes go with their objects', () => {
  const left = run(`
    import { memory, ones, scope } from 'TORCH';
    for (let i = 0; i < 100; i++) { ones([1000]); scope(() => ones([10])); }
    for (let i = 0; i < 20 && memory().live > 0; i++) { await new Promise((r) => setTimeout(r, 5)); gc(); }
    console.log(memory().live);`);
  assert.equal(Number(left), 0);
});

test('a long job outside of scopes keeps little of what it made', () => {
  const left = run(`
    import { memory, ones } from 'TORCH';
    const most = [0, 0];
    for (let i = 0; i < 150; i++) { ones([2 ** 22]); most[0] = Math.max(most[0], memory().live); }
    for (let i = 0; i < 600_000; i++) { ones([1]); most[1] = Math.max(most[1], memory().live); }
    console.log(most.join(' '));`);
  const [large, small] = left.split(' ').map(Number) as [number, number];
  assert(large < 75 && small < 300_000, `${large} of 16 MiB, ${small} small ones at once`);
});

test('what looks like a tensor and is none harms nobody when it is collected', () => {
  const alive = run(`
    import { scope, Tensor } from 'TORCH';
    (() => { for (let i = 0; i < 10; i++) scope(() => Object.create(Tensor.prototype)); })();
    for (let i = 0; i < 5; i++) { await new Promise((r) => setTimeout(r, 5)); gc(); }
    console.log('alive');`);
  assert.equal(alive, 'alive');
});

test('memory of tensors outside of scopes is reported to the collector once, and taken back', () => {
  const MiB = 2 ** 20;
  const start = memory().external;
  const t = scope(() => ones([4 * MiB]).add(1));
  assert.equal(memory().external, start + 16 * MiB);
  const views = Array.from({ length: 50 }, () => t.view(2, 2 * MiB));
  assert.equal(memory().external, start + 16 * MiB, 'views weigh nothing');
  t.dispose();
  assert.equal(memory().external, start + 16 * MiB, 'a view still holds the memory');
  for (const view of views) view.dispose();
  assert.equal(memory().external, start);
});

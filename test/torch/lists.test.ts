import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  backward,
  gradNorm,
  muonDirection,
  ones,
  quintic_,
  randn,
  scope,
  setThreads,
  stepNumbers,
  type Tensor,
  tensor,
  type Updated,
  update_,
  zeros,
} from '../../src/torch/index.js';
import { native } from '../../src/torch/native.js';

const OPTIONS = { clip: 1, beta1: 0.9, beta2: 0.95, weightDecay: 0.1, eps: 1e-8 };
const RATES = [1e-2, 0.25, 0.5] as const;
const rates = (): Tensor => tensor(new Float64Array(RATES), [3]);
const SIZES = [[3, 5], [1], [40_000], [17, 2]];
type Wide = 'float32' | 'float64';
const make = (name: number, dtype: Wide) => SIZES.map((shape, i) => randn({ lo: name, hi: i }, 0, [1, ...shape], { dtype }).view(...shape));
const numbers = (t: Tensor) => Float64Array.from([...t.toArray()].map(Number));
/** Of a step whose gradient has this norm. */
const at = (norm: number, step = zeros([]), dtype: Wide = 'float64') => stepNumbers(tensor([norm], [], { dtype }), step, rates(), OPTIONS);
const momentsOf = (w: Tensor) => [w.mul(0), w.mul(0)] as const;

/** What update_ does, one number at a time; `t` counts from 1, `scale` divides gradients. */
class Reference {
  readonly p: number[];
  readonly m: number[];
  readonly v: number[];
  readonly target: number[];
  readonly average: number[];
  constructor(p: Iterable<number>) {
    this.p = [...p];
    this.m = this.p.map(() => 0);
    this.v = this.p.map(() => 0);
    this.target = this.p.map((x) => x + 1);
    this.average = this.p.map((x) => x - 1);
  }

  step(g: ArrayLike<number> | undefined, t: number, scale: number, direction?: number): void {
    const { p, m, v, target, average } = this;
    const { beta1, beta2, weightDecay, eps } = OPTIONS;
    const [lr, follow, sample] = RATES;
    for (const [i, before] of p.entries()) {
      let now = before;
      if (g && direction !== undefined) now -= lr * (direction * (g[i] as number) + weightDecay * before);
      else if (g) {
        const gradient = (g[i] as number) / scale;
        const first = beta1 * (m[i] as number) + (1 - beta1) * gradient;
        const second = beta2 * (v[i] as number) + (1 - beta2) * gradient * gradient;
        [m[i], v[i]] = [first, second];
        now -= lr * weightDecay * before + (lr * (first / (1 - beta1 ** t))) / (Math.sqrt(second / (1 - beta2 ** t)) + eps);
      }
      p[i] = now;
      target[i] = (target[i] as number) + follow * (now - (target[i] as number));
      average[i] = (average[i] as number) + sample * (now - (average[i] as number));
    }
  }
}

for (const [dtype, tolerance] of [
  ['float64', 1e-13],
  ['float32', 3e-6],
] as const) {
  test(`update_ in ${dtype} equals the formulas over five steps`, () =>
    scope(() => {
      const weights = make(1, dtype);
      const references = weights.map((w) => new Reference(numbers(w)));
      // The last goes in the direction it is given; the second has no averages; the third's gradient is missing now and then.
      const parameters: Updated[] = weights.map((weight, i) => ({
        weight,
        ...(i === 3 ? { scale: 3 } : { moments: momentsOf(weight) }),
        ...(i === 1 ? {} : { target: weight.add(1), average: weight.sub(1) }),
      }));
      const step = zeros([]);
      for (let t = 1; t <= 5; t++) {
        const gradients = make(10 + t, dtype).map((g, i) => (i === 2 && t % 2 === 0 ? null : g));
        const norm = t === 3 ? 4 : 0.5;
        update_(parameters, gradients, at(norm, step, dtype), OPTIONS);
        for (const [i, r] of references.entries()) {
          const gradient = gradients[i];
          r.step(gradient ? numbers(gradient) : undefined, t, t === 3 ? norm + 1e-6 : 1, i === 3 ? 3 : undefined);
        }
      }
      assert.equal(step.item(), 5);
      for (const [i, r] of references.entries()) {
        const { weight, moments, target, average } = parameters[i] as Updated;
        const pairs = [
          ...([[weight, r.p]] as const),
          ...(moments ? ([[moments[0], r.m] as const, [moments[1], r.v]] as const) : []),
          ...(target && average ? ([[target, r.target] as const, [average, r.average]] as const) : []),
        ];
        for (const [k, [found, expected]] of pairs.entries()) {
          const array = numbers(found);
          const worst = Math.max(...expected.map((x, j) => Math.abs((array[j] as number) - x) / Math.max(1, Math.abs(x))));
          assert.ok(worst <= tolerance, `parameter ${i}, tensor ${k}: ${worst}`);
        }
      }
    }));
}

test('update_ writes copies in bfloat16 and reads gradients in it', () =>
  scope(() => {
    for (const size of [1, 15, 16, 1023, 1025, 40_000]) {
      const wide = randn({ lo: size, hi: 0 }, 0, [size]);
      const gradient = randn({ lo: size, hi: 1 }, 0, [size]).to({ dtype: 'bfloat16' });
      const run = (g: Tensor): Updated => {
        const weight = wide.clone();
        const copy = ones([size], { dtype: 'bfloat16' });
        const one = { weight, moments: momentsOf(wide), target: wide.mul(2), copy, targetCopy: ones([size], { dtype: 'bfloat16' }) };
        update_([one], [g], at(0), OPTIONS);
        return one;
      };
      const [a, b] = [run(gradient), run(gradient.to({ dtype: 'float32' }))];
      assert.deepEqual(numbers(a.weight), numbers(b.weight));
      assert.deepEqual(numbers(a.copy as Tensor), numbers(a.weight.to({ dtype: 'bfloat16' })));
      assert.deepEqual(numbers(a.targetCopy as Tensor), numbers((a.target as Tensor).to({ dtype: 'bfloat16' })));
    }
  }));

test('a step whose gradients were not finite changes nothing but the averages', () => {
  const weight = ones([3], { requiresGrad: true });
  const [moments, step, target] = [momentsOf(ones([3])), zeros([]), zeros([3])];
  const [bad, momentum] = [tensor([Number.NaN, 1, 1]), ones([1, 3, 1])];
  const numbers = stepNumbers(gradNorm([bad]), step, rates(), OPTIONS);
  update_([{ weight, moments, target }], [bad], numbers, OPTIONS);
  const direction = muonDirection([bad], momentum, numbers, 0.95, 'float32');
  assert.deepEqual(
    [...[weight, ...moments, momentum, direction, target].map((x) => [...x.detach().toArray()]), step.item()],
    [...[1, 0, 0, 1, 0, 0.25].map((x) => [x, x, x]), 0],
  );
  update_([{ weight, moments }], [ones([3])], at(1, step), OPTIONS);
  assert.equal(step.item(), 1);
  assert.notEqual(weight.detach().toArray()[0], 1);
});

test('gradients may be views', () => {
  const weight = ones([2, 3]);
  const gradient = tensor([1, 2, 3, 4, 5, 6], [3, 2]).transpose(0, 1);
  update_([{ weight }], [gradient], at(1), { ...OPTIONS });
  assert.deepEqual(
    [...weight.toArray()].map((x) => Math.round(Number(x) * 1e6)),
    [1, 3, 5, 2, 4, 6].map((g) => 1e6 - 1e4 * g - 1e3),
  );
});

test('gradients of parameters that a graph still needs are refused by libtorch, not silently wrong', () => {
  const weight = ones([2], { requiresGrad: true });
  const copy = ones([2], { dtype: 'bfloat16', requiresGrad: true });
  const losses = [weight, copy].map((w) => w.square().sum());
  update_([{ weight, copy }], [ones([2])], at(1), OPTIONS);
  assert.equal(weight.requiresGrad, true);
  for (const loss of losses) assert.throws(() => backward(loss), /modified by an inplace operation/);
});

test('gradNorm is the norm of all together, the same on any number of threads', () => {
  const gradients = make(3, 'float32');
  const expected = Math.sqrt(gradients.reduce((sum, g) => sum + numbers(g).reduce((s, x) => s + x * x, 0), 0));
  const found = gradNorm([...gradients, null]);
  assert.deepEqual([found.shape, found.dtype], [[], 'float32']);
  assert(Math.abs(Number(found.item()) - expected) < 1e-6 * expected);
  setThreads(1);
  assert.equal(gradNorm(gradients).item(), found.item());
  setThreads(2);
  assert.equal(gradNorm(make(3, 'float64')).dtype, 'float64');
  assert.equal(gradNorm([]).item(), 0);
  assert.equal(gradNorm([tensor([3, 4], [2], { dtype: 'bfloat16' })]).item(), 5);
});

test("muonDirection is Nesterov's, each matrix divided by its norm; the momentum follows", () =>
  scope(() => {
    for (const [dtype, out, tolerance] of [
      ['float64', 'float64', 1e-12],
      ['float32', 'float32', 1e-6],
      ['float32', 'bfloat16', 4e-3],
    ] as const) {
      const [r, q] = [37, 19];
      const momentum = randn({ lo: 1, hi: 0 }, 0, [3, r, q], { dtype });
      const gradients = [2, 1].map((count, i) => randn({ lo: 1, hi: 1 + i }, 0, [count * r, q], { dtype }));
      const [m, g] = [numbers(momentum), Float64Array.from(gradients.flatMap((x) => [...numbers(x)]))];
      const next = m.map((x, i) => x + 0.05 * ((g[i] as number) / 5 - x));
      const direction = next.map((x, i) => (g[i] as number) / 5 + 0.95 * (x - (g[i] as number) / 5));
      const found = muonDirection(gradients, momentum, at(5 - 1e-6, zeros([]), dtype), 0.95, out);
      assert.deepEqual([found.dtype, found.shape], [out, [3, r, q]]);
      const [array, moved] = [numbers(found), numbers(momentum)];
      for (let i = 0; i < 3; i++) {
        const norm = Math.hypot(...direction.subarray(i * r * q, (i + 1) * r * q)) + 1e-7;
        for (let j = i * r * q; j < (i + 1) * r * q; j++) {
          assert.ok(Math.abs((moved[j] as number) - (next[j] as number)) < 1e-6, `momentum ${j}`);
          const wanted = (direction[j] as number) / norm;
          assert.ok(
            Math.abs((array[j] as number) - wanted) <= tolerance * Math.max(0.01, Math.abs(wanted)),
            `${out}, ${j}: ${array[j]}, ${wanted}`,
          );
        }
      }
    }
  }));

test('quintic_ is a I + b x + c square', () =>
  scope(() => {
    for (const [dtype, tolerance] of [
      ['float64', 1e-14],
      ['float32', 1e-6],
      ['bfloat16', 4e-3],
    ] as const) {
      for (const k of [1, 7, 32, 45]) {
        const [x, square] = [0, 1].map((i) => randn({ lo: k, hi: i }, 0, [2, k, k], { dtype: 'float64' }).to({ dtype })) as [
          Tensor,
          Tensor,
        ];
        const [a, b] = [numbers(x), numbers(square)];
        quintic_(square, x, 3.5, -4.75, 2);
        const wanted = a.map((value, i) => (Math.floor(i / k) % k === i % k ? 3.5 : 0) - 4.75 * value + 2 * (b[i] as number));
        for (const [i, found] of numbers(square).entries())
          assert.ok(
            Math.abs(found - (wanted[i] as number)) <= tolerance * Math.max(1, Math.abs(wanted[i] as number)),
            `${dtype} ${k}, ${i}`,
          );
      }
    }
  }));

test('the operators that change lists say so: out of memory, they are not called again', () => {
  const changed = (schema: string): string[] => [...schema.matchAll(/\(\w!\)\S* (\w+)/g)].map(([, name]) => name as string);
  assert.deepEqual(changed(String(native().schema('dsd::update_'))), [
    'weights',
    'first',
    'second',
    'target',
    'average',
    'copies',
    'target_copies',
  ]);
});

test('lists that do not match are refused', () => {
  const [weight, n] = [ones([2]), at(1)];
  const refused = (parameter: Updated, gradient: Tensor | null, message: RegExp) =>
    assert.throws(() => update_([parameter], [gradient], n, OPTIONS), message);
  refused({ weight }, ones([3]), /update_: gradients\[0\] has shape \[3\], expected \[2\]/);
  assert.throws(() => update_([{ weight }], [], n, OPTIONS), { name: 'TypeError' });
  refused({ weight }, ones([2], { dtype: 'float64' }), /dtype/);
  refused({ weight: ones([2], { dtype: 'bfloat16' }) }, null, /must be float32/);
  refused({ weight, target: ones([2, 1]) }, null, /target\[0\] has shape/);
  refused({ weight, copy: ones([2]) }, null, /copies\[0\] has dtype/);
  refused({ weight: ones([2, 3]).transpose(0, 1) }, null, /not contiguous/);
  refused({ weight: ones([2, 3]), target: ones([3, 2]).transpose(0, 1) }, null, /not contiguous/);
  assert.throws(() => update_([{ weight }], [null], ones([7], { dtype: 'float64' }), OPTIONS), /numbers must be what step_numbers gives/);
  assert.throws(() => muonDirection([ones([5])], ones([1, 2, 2]), n, 0.95, 'float32'), /no whole number of 2 by 2/);
  assert.throws(() => muonDirection([ones([4])], ones([2, 2, 2]), n, 0.95, 'float32'), /gradients have 4 elements, momentum 8/);
  assert.throws(() => quintic_(ones([1, 2, 3]), ones([1, 2, 3]), 1, 1, 1), /must be \(M, k, k\)/);
  assert.throws(() => stepNumbers(ones([]), zeros([]), ones([2]), OPTIONS), /rates must be three/);
});

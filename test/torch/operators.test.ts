/**
 * Every operator that src/torch reaches, against Python's PyTorch: the answers, dtypes, gradients and refusals that test/oracle/operators.py
 * wrote down (its docstring explains the format). A new method, function or operator without a case fails here.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Op } from '../../src/torch/call.js';
import * as torch from '../../src/torch/index.js';
import { type DType, grad, scope, Tensor, type TypedArray, tensor } from '../../src/torch/index.js';

type Json = number | string | boolean | null | Json[] | { [key: string]: Json };
interface Spec {
  readonly d: DType;
  readonly s: readonly number[];
  readonly v: readonly Json[];
  readonly view?: readonly (readonly [string, ...Json[]])[];
}
interface Case {
  readonly of: string;
  readonly in: readonly Spec[];
  readonly args: readonly Json[];
  readonly self?: Json;
  readonly out: readonly (Spec | { readonly $v: Json })[];
  readonly after?: Readonly<Record<string, readonly Json[]>>;
  readonly track?: 1;
  readonly tracked?: readonly boolean[];
  readonly grads?: readonly (readonly Json[] | null)[];
  readonly refused?: 1;
  readonly loose?: number;
  readonly options?: readonly string[];
}
type Run = (...args: unknown[]) => unknown;

const ROOT = join(import.meta.dirname, '../../..');
const CASES = JSON.parse(readFileSync(join(ROOT, 'test/fixtures/oracle/operators.json'), 'utf8')) as Case[];

// Exports and methods that compute nothing: lifetimes, gradients and the machine have tests of their own.
const NOT_OPERATORS = new Set([
  ...['Tensor.size', 'Tensor.dispose', 'Tensor.toString'],
  ...['Tensor', 'scope', 'keep', 'noGrad', 'isGradEnabled', 'backward', 'grad', 'gradients', 'clearGradients', 'dtypeBytes', 'isFloating'],
  ...[
    'engineInfo',
    'kernelProblem',
    'emptyCache',
    'setThreads',
    'setDeterministic',
    'cudaAvailable',
    'synchronize',
    'memory',
    'isOutOfMemory',
    'timeCall',
  ],
  ...['attentionKernels', 'profile', 'Tensor.upload', 'Graph', 'Replayed', 'markWork', 'workAhead'],
  // fused.test.ts and fused-cuda.test.ts hold these to their compositions.
  ...['addLinear', 'addNorm', 'addNormLinear', 'addNormMlp', 'qkvAttention', 'settled', 'swiglu', 'tokenLinear'],
]);

const called = new Set<string>();
const call = Op.prototype.call;
Op.prototype.call = function (this: Op, ...args) {
  called.add(this.name);
  return call.apply(this, args);
};

// From JSON to values.

const SPECIAL: Readonly<Record<string, number>> = { nan: Number.NaN, inf: Number.POSITIVE_INFINITY, '-inf': Number.NEGATIVE_INFINITY };
const isObject = (value: Json): value is { [key: string]: Json } => typeof value === 'object' && value !== null && !Array.isArray(value);

function numeric(value: Json): number | bigint {
  if (typeof value === 'number') return value;
  assert.ok(isObject(value), `not a number: ${JSON.stringify(value)}`);
  return '$i' in value ? BigInt(value.$i as string) : (SPECIAL[value.$n as string] as number);
}

const ARRAYS = { Float32Array, Float64Array, Int32Array, Int16Array, Int8Array, Uint8Array } as const;
const HOLDERS: Readonly<Record<DType, keyof typeof ARRAYS | 'BigInt64Array'>> = {
  float64: 'Float64Array',
  float32: 'Float32Array',
  bfloat16: 'Float32Array',
  float16: 'Float32Array',
  int64: 'BigInt64Array',
  int32: 'Int32Array',
  int16: 'Int16Array',
  int8: 'Int8Array',
  uint8: 'Uint8Array',
  bool: 'Uint8Array',
};

function typed(kind: string, values: readonly Json[]): TypedArray {
  const numbers = values.map(numeric);
  if (kind === 'BigInt64Array') return BigInt64Array.from(numbers, BigInt);
  return ARRAYS[kind as keyof typeof ARRAYS].from(numbers.map(Number));
}

function build(spec: Spec, track: boolean): Tensor {
  let result = tensor(typed(HOLDERS[spec.d], spec.v), spec.s, { dtype: spec.d });
  for (const [step, ...args] of spec.view ?? []) {
    if (step === 'permute') result = result.permute(args[0] as number[]);
    else if (step === 'expand') result = result.expand(args[0] as number[]);
    else result = result.slice(...(args as [number, number, number, number]));
  }
  return track && differentiable(spec.d) ? result.detach().requiresGrad_(true) : result;
}

const differentiable = (dtype: DType): boolean => dtype === 'float32' || dtype === 'float64';

/** What cannot be right, whatever the argument. */
function bad(kind: string): unknown {
  if (kind !== 'disposed') return { object: {}, string: 'no', fraction: 1.5, huge: 2 ** 60 }[kind];
  const gone = tensor([1, 2]);
  gone.dispose();
  return gone;
}

function argument(value: Json, inputs: readonly Tensor[]): unknown {
  if (Array.isArray(value)) return value.map((each) => argument(each, inputs));
  if (!isObject(value)) return value;
  if ('$t' in value) return inputs[value.$t as number];
  if ('$u' in value) return undefined;
  if ('$bad' in value) return bad(value.$bad as string);
  if ('$a' in value) return typed(value.$a as string, value.v as Json[]);
  if ('$i' in value || '$n' in value) return numeric(value);
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, argument(each, inputs)]));
}

// Running and comparing.

function run(item: Case, inputs: readonly Tensor[]): { result: unknown; self: unknown } {
  const args = item.args.map((each) => argument(each, inputs));
  if (!item.of.startsWith('Tensor.')) return { result: (torch as unknown as Record<string, Run>)[item.of]?.(...args), self: undefined };
  const name = item.of.slice('Tensor.'.length);
  let self = (item.self === undefined ? inputs[0] : argument(item.self, inputs)) as Tensor;
  // A leaf that requires a gradient may not be changed in place; the oracle clones too.
  if (changes(item) && !item.refused) self = self.clone();
  return { result: (self as unknown as Record<string, Run>)[name]?.call(self, ...args), self };
}

const changes = (item: Case): boolean => /^Tensor\..*_$/.test(item.of) && item.of !== 'Tensor.requiresGrad_';

function close(found: Tensor | TypedArray, expected: readonly Json[], dtype: DType, item: Case, what: string): void {
  const sign = item.options?.includes('abs') ? Math.abs : (x: number) => x;
  const tolerance = item.loose ?? (dtype === 'float64' ? 1e-12 : 1e-6);
  const values = found instanceof Tensor ? found.toArray() : found;
  assert.equal(values.length, expected.length, `${what}: number of elements`);
  for (const [i, each] of expected.entries()) {
    const [a, b] = [values[i] as number | bigint, numeric(each)];
    if (typeof a === 'bigint') assert.equal(a, BigInt(b), `${what}[${i}]`);
    else {
      const [x, y] = [sign(a), sign(Number(b))];
      const same = Object.is(x, y) || x === y || Math.abs(x - y) <= tolerance * Math.max(1, Math.abs(y));
      assert.ok(same, `${what}[${i}] is ${x}, expected ${y}`);
    }
  }
}

function weights(like: Tensor, output: number): Tensor {
  const values = Float64Array.from({ length: like.numel }, (_, i) => (((i * 37 + output * 5) % 11) - 5) / 4);
  return tensor(values, like.shape).to({ dtype: like.dtype });
}

function answers(item: Case): void {
  const inputs = item.in.map((spec) => build(spec, item.track === 1));
  const { result, self } = run(item, inputs);
  if (changes(item) || item.of === 'Tensor.requiresGrad_') assert.equal(result, self, 'a method that changes its tensor returns it');
  const outputs = result === undefined ? [] : Array.isArray(result) ? (result as unknown[]) : [result];
  assert.equal(outputs.length, item.out.length, 'number of results');
  for (const [j, expected] of item.out.entries()) {
    const found = outputs[j];
    if ('$v' in expected) plain(found, expected.$v, item);
    else {
      assert.ok(found instanceof Tensor);
      assert.equal(found.dtype, expected.d);
      assert.deepEqual(found.shape, expected.s);
      if (!item.options?.includes('shape')) close(found, expected.v, expected.d, item, `result ${j}`);
    }
  }
  for (const [n, spec] of item.in.entries()) {
    const after = item.after?.[n];
    if (after) close(inputs[n] as Tensor, after, spec.d, item, `input ${n} afterwards`);
    // To the digits of the half-precision types: what must not change is built of values that they round.
    else if (!spec.view) close(inputs[n] as Tensor, spec.v, spec.d, { ...item, loose: 1e-2 }, `input ${n}, which must not change,`);
  }
  if (item.track) gradientsOf(item, inputs, outputs as Tensor[]);
}

function plain(found: unknown, expected: Json, item: Case): void {
  if (isObject(expected) && '$a' in expected) {
    assert.equal((found as object).constructor.name, expected.$a);
    close(found as TypedArray, expected.v as Json[], (item.in[0] as Spec).d, item, 'array');
  } else assert.equal(found, typeof expected === 'boolean' ? expected : numeric(expected));
}

function gradientsOf(item: Case, inputs: readonly Tensor[], outputs: readonly Tensor[]): void {
  const tracked = outputs.map((each) => each instanceof Tensor && each.requiresGrad);
  assert.deepEqual(tracked, item.tracked, 'which results require gradients');
  if (!item.grads) return;
  const counted = [...outputs.keys()].filter((j) => tracked[j] && (j === 0 || !item.options?.includes('order')));
  const wanted = [...inputs.keys()].filter((n) => differentiable((item.in[n] as Spec).d));
  const found = grad(
    counted.map((j) => outputs[j] as Tensor),
    wanted.map((n) => inputs[n] as Tensor),
    counted.map((j) => weights(outputs[j] as Tensor, j)),
    { allowUnused: true },
  );
  for (const [at, n] of wanted.entries()) {
    const gradient: Tensor | null | undefined = found[at];
    const expected = item.grads[n];
    if (expected) {
      assert.ok(gradient, `input ${n} has no gradient`);
      assert.deepEqual(gradient.shape, inputs[n]?.shape);
      close(gradient, expected, (item.in[n] as Spec).d, item, `gradient of input ${n}`);
    } else assert.equal(gradient, null, `input ${n} has a gradient`);
  }
}

function refuses(item: Case): void {
  const inputs = item.in.map((spec) => build(spec, false));
  assert.throws(
    () => run(item, inputs),
    (error) => error instanceof Error && /^([\w:.]+: |unknown dtype )/.test(error.message),
    `${item.of} took ${JSON.stringify(item.args)}`,
  );
}

const groups = new Map<string, Case[]>();
for (const item of CASES) groups.set(item.of, [...(groups.get(item.of) ?? []), item]);
for (const [name, items] of groups) {
  test(`${name}: ${items.length} cases`, () => {
    for (const item of items) {
      try {
        scope(() => (item.refused ? refuses(item) : answers(item)));
      } catch (error) {
        if (error instanceof Error) error.message += `\n  in ${JSON.stringify(item).slice(0, 400)}`;
        throw error;
      }
    }
  });
}

test('every method and function has cases', () => {
  const methods = [Tensor.prototype, Object.getPrototypeOf(Tensor.prototype)]
    .flatMap((from) => Object.entries(Object.getOwnPropertyDescriptors(from)))
    .filter(([name, { value }]) => typeof value === 'function' && name !== 'constructor')
    .map(([name]) => `Tensor.${name}`);
  const functions = Object.entries(torch).flatMap(([name, value]) => (typeof value === 'function' ? [name] : []));
  const exported = [...methods, ...functions];
  assert.deepEqual(
    exported.filter((name) => !NOT_OPERATORS.has(name) && !groups.get(name)?.some((item) => !item.refused)),
    [],
    'add cases to test/oracle',
  );
  assert.deepEqual(
    [...groups.keys(), ...NOT_OPERATORS].filter((name) => !exported.includes(name)),
    [],
    'cases or exceptions of what is gone',
  );
});

test('every operator named in src/torch that this libtorch has was called', () => {
  const named = new Set<string>();
  for (const file of readdirSync(join(ROOT, 'src/torch'))) {
    if (file === 'fused.ts') continue;
    const text = readFileSync(join(ROOT, 'src/torch', file), 'utf8');
    for (const [, name] of text.matchAll(/new Op\('(\w+::[\w.]+)'\)/g)) named.add(name as string);
    for (const [, name] of text.matchAll(/\baten\('([\w.]+)'\)/g)) named.add(`aten::${name}`);
    for (const [, name, first = 'Tensor', second = 'Scalar'] of text.matchAll(/new Binary\('(\w+)'(?:, '(\w+)', '(\w+)')?\)/g))
      for (const overload of [first, second]) named.add(`aten::${name}.${overload}`);
  }
  assert.ok(named.size > 150, `only ${named.size} operators found in the sources`);
  const missed = [...named].filter((name) => !called.has(name) && new Op(name).exists);
  assert.deepEqual(missed, [], 'add cases to test/oracle');
});

test('every method of a disposed tensor throws', () => {
  for (const name of Object.getOwnPropertyNames(Tensor.prototype)) {
    const method = Object.getOwnPropertyDescriptor(Tensor.prototype, name)?.value as Run | undefined;
    if (typeof method !== 'function' || NOT_OPERATORS.has(`Tensor.${name}`)) continue;
    const gone = tensor([1, 2]);
    gone.dispose();
    assert.throws(() => method.call(gone, tensor([1]), tensor([1])), Error, `Tensor.${name} of a disposed tensor`);
  }
});

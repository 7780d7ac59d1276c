import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as torch from '../../src/torch/index.js';
import { Tensor } from '../../src/torch/index.js';

// Nothing that a program passes may end Node. A crash here is the failure of the whole file.

const float = () => torch.arange(24).view(2, 3, 4);
const makers: (() => unknown)[] = [
  float,
  () => torch.ones([3, 4], { dtype: 'float64' }),
  () => torch.ones([2, 3, 5, 5]),
  () => torch.ones([4, 3, 2, 2], { dtype: 'bfloat16' }),
  () => torch.zeros([0, 4]),
  () => torch.full([], 3),
  () => torch.tensor(new BigInt64Array([0n, 2n, -1n, 1n << 60n])),
  () => torch.zeros([2, 2], { dtype: 'int64' }),
  () => torch.zeros([3], { dtype: 'bool' }),
  () => torch.ones([3, 4], { requiresGrad: true }),
  () => {
    const gone = torch.zeros([2]);
    gone.dispose();
    return gone;
  },
  () => [float(), float()],
  () => [float(), null],
  () => Object.create(Tensor.prototype) as unknown,
  () => ({ lo: 1, hi: 2 }),
  () => ({ dtype: 'int64' }),
  () => ({ device: 'cuda:7', dtype: 'float33' }),
  () => ({ requiresGrad: true }),
  () =>
    Object.defineProperty([1, 2], 0, {
      get() {
        throw new Error('getter');
      },
    }),
  () => new Proxy([2, 2], {}),
  () => Symbol('s'),
  () => () => 1,
];
const plain: unknown[] = [
  ...[0, 1, 2, 3, -1, -2, -7, 5, 1.5, -0, Number.NaN, Infinity, -Infinity, 2 ** 40, 2 ** 53, -(2 ** 63), 1e300],
  ...[
    2 ** 52 + 5,
    2 ** 52 + 2 ** 51,
    3n,
    -(2n ** 80n),
    '',
    'mean',
    'none',
    'ij,jk->ik',
    'x'.repeat(5000),
    true,
    false,
    null,
    undefined,
    {},
    [],
  ],
  ...[
    [2],
    [2, 2],
    [0, 1],
    [-1],
    [2, -1],
    [2 ** 40],
    [2 ** 32, 2 ** 32],
    [1.5],
    ['a'],
    [[1], [2]],
    new Float32Array(4),
    new Float32Array(24),
    new Uint16Array(3),
    new Map(),
    new Date(),
  ],
];
const argument = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...makers).map((make) => ({ make })) },
  { weight: 4, arbitrary: fc.constantFrom(...plain.map((value) => ({ make: () => value }))) },
);

type Callable = (...args: unknown[]) => unknown;
/** Those that take a function, or change the process, or wait for nothing. */
const leftOut = new Set([
  'scope',
  'noGrad',
  'keep',
  'setThreads',
  'setDeterministic',
  'Tensor',
  'constructor',
  'dispose',
  'isOutOfMemory',
  'dtypeBytes',
  'isFloating',
  'engineInfo',
  'synchronize',
  'memory',
  'cudaAvailable',
]);
const functions: [string, Callable][] = Object.entries(torch)
  .filter(([name, value]) => typeof value === 'function' && !leftOut.has(name))
  .map(([name, value]) => [name, value as unknown as Callable]);
const methods: [string, Callable][] = Object.entries(Object.getOwnPropertyDescriptors(Tensor.prototype))
  .filter(([name]) => !leftOut.has(name))
  .map(([name, descriptor]) => [name, (self, ...args) => ((descriptor.value ?? descriptor.get) as Callable).apply(self, args)]);

function survives(call: Callable, args: { make: () => unknown }[], first?: { make: () => unknown }): void {
  torch.scope(() => {
    try {
      call(...(first ? [first.make()] : []), ...args.map((arg) => arg.make()));
    } catch (error) {
      assert(error instanceof Error, String(error));
      assert.notEqual(error.message, '');
    }
  });
}

/** The same runs each time, unless asked for so many seconds of other ones. A crash prints no seed: bisect by DSD_FUZZ_SEED. */
const seconds = Number(process.env.DSD_FUZZ_SECONDS ?? 0);
const seed = Number(process.env.DSD_FUZZ_SEED ?? (seconds ? Date.now() : 1));
const runs = seconds ? { numRuns: 100_000_000, interruptAfterTimeLimit: seconds * 1000, seed } : { numRuns: 15_000, seed };

test('functions survive any arguments', () => {
  fc.assert(
    fc.property(fc.constantFrom(...functions), fc.array(argument, { maxLength: 7 }), ([, call], args) => survives(call, args)),
    runs,
  );
});

test('methods survive any tensor and any arguments', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...methods),
      fc.constantFrom(...makers.slice(0, 11)),
      fc.array(argument, { maxLength: 4 }),
      ([, call], make, args) => survives(call, args, { make }),
    ),
    runs,
  );
});

/** `dsd bench ops` on a GPU: the parts of a block, each beside the least time that its bytes and FLOPs take on this device, and beside its composition. */
import { key } from '../../core/random.js';
import { tokens } from '../../dsd/sizes.js';
import { attentionKernels, type Device, grad, linear, noGrad, profile, randn, scope, type Tensor } from '../../torch/index.js';
import { print, printJson } from '../output.js';
import { figure } from '../text.js';
import { makeUpdate, updateCost } from './optimizer.js';
import { blockParts, blockProducts, type Cost, type Instance, makeBlock, numbers, type Shape } from './parts.js';
import { markdown, shown } from './report.js';
import { clock, describeModel, findWork, openBench, timesOf, type WorkFlags } from './work.js';

export interface OperatorFlags extends WorkFlags {
  readonly steps: number | undefined;
}

/** What the device reaches here, measured before all else: per second, bytes read plus bytes written by a copy, and FLOPs of a square product. */
export interface Ceilings {
  readonly bytes: number;
  readonly flops: number;
}

export interface OperatorRow extends Cost {
  readonly name: string;
  readonly pass: 'forward' | 'backward' | 'update';
  /** How many of it a block has; 0: it is of the whole network. */
  readonly times: number;
  readonly microseconds: number;
  /** Of the composition. */
  readonly plain: number | null;
  readonly floor: number;
  /** How many times the floor it takes. */
  readonly distance: number;
}

export interface ProductRow {
  readonly name: string;
  readonly pass: 'forward' | 'dx' | 'dw';
  readonly shape: readonly [rows: number, into: number, out: number];
  readonly microseconds: number;
  readonly flopsPerSecond: number;
}

export interface AttentionRow {
  readonly name: string;
  /** Microseconds, null where the kernel does not take these shapes here. */
  readonly forward: number | null;
  readonly backward: number | null;
}

const CALLS = 20;
/** Sets of inputs that are taken in turn hold more than any cache does: an operator that finds its inputs there is not the one of a step. */
const BEYOND_CACHE = 200e6;
const MOST_SETS = 16;

export async function benchOperators(flags: OperatorFlags, loadBefore: number): Promise<void> {
  const say = (text: string): unknown => !flags.quiet && process.stderr.write(`${text}\n`);
  const engine = openBench(flags);
  const work = findWork(flags);
  const { train } = work.config;
  const batch = flags.batch ?? (train.microBatch || train.batch);
  const shape: Shape = { model: work.model, batch, device: engine.device, compute: engine.compute };
  const calls = flags.steps ?? CALLS;
  say('what the device reaches');
  const ceilings = measureCeilings(shape, calls);
  const operators = blockParts(shape).flatMap((part) => {
    say(part.name);
    return scope(() => {
      const sets = inSets(part.forward.bytes, part.make);
      const times = { forward: forwardTime(shape.device, sets, calls), backward: backwardTime(shape.device, sets, calls) };
      return (['forward', 'backward'] as const).map((pass): OperatorRow => {
        const { fused: microseconds, plain } = times[pass];
        const { bytes, flops } = part[pass];
        const floor = floorOf(part[pass], ceilings);
        return { name: part.name, pass, times: part.times, bytes, flops, microseconds, plain, floor, distance: microseconds / floor };
      });
    });
  });
  say('matrix products');
  const products = blockProducts(shape).flatMap((product) => productTimes(shape, product, calls));
  say('a whole block, and the update of the weights');
  operators.push(...blockRows(shape, operators, ceilings, calls), updateRow(shape, ceilings, calls));
  say('attention kernels of libtorch');
  const attention = attentionTimes(shape, calls);
  if (flags.json)
    return printJson({
      ...{ engine: engine.about, loadBefore, preset: work.preset, network: work.network, model: work.model, batch, ceilings },
      ...{ timedBy: shape.device === 'cpu' ? 'clock' : 'profiler', operators, products, attention },
    });
  print(
    `parts of a block for ${batch} pictures on ${engine.about}: microseconds ${shape.device === 'cpu' ? 'by the clock' : 'of the device'}, inputs not in its cache`,
    `${work.network}: ${describeModel(work.model)}`,
    `here a copy moves ${figure(ceilings.bytes / 1e9)} GB/s, read and written; a square product reaches ${figure(ceilings.flops / 1e12)} TFLOP/s`,
    '',
    ...showOperators(operators),
    '',
    ...showProducts(products, ceilings),
    '',
    ...showAttention(attention, shape),
    '',
    summary(operators, products, ceilings),
  );
}

/** A block as the trunk has it. Its floor is the sum of its parts' and of its matrix products at the square one's rate, since one waits for the other. */
function blockRows(shape: Shape, parts: readonly OperatorRow[], ceilings: Ceilings, calls: number): OperatorRow[] {
  const products = blockProducts(shape).reduce((sum, { rows, into, out }) => sum + 2 * rows * into * out, 0);
  return scope(() => {
    const sets = Array.from({ length: 2 }, (_, seed) => makeBlock(shape, seed));
    const times = {
      forward: noGrad(() =>
        microsecondsOf(
          shape.device,
          sets.map(({ fused }) => fused),
          calls,
        ),
      ),
      backward: blockBackward(shape.device, sets, calls),
    };
    return (['forward', 'backward'] as const).map((pass): OperatorRow => {
      const own = parts.filter((part) => part.pass === pass);
      const sum = (of: (part: OperatorRow) => number): number => own.reduce((total, part) => total + part.times * of(part), 0);
      const dense = (pass === 'forward' ? 1 : 2) * products;
      const [bytes, flops] = [sum((part) => part.bytes), sum((part) => part.flops) + dense];
      const floor = sum((part) => part.floor) + (dense / ceilings.flops) * 1e6;
      const microseconds = times[pass];
      return { name: 'a whole block', pass, times: 0, bytes, flops, microseconds, plain: null, floor, distance: microseconds / floor };
    });
  });
}

/** What a block's gradient takes: both passes less the forward one, since a block can be gone back through once only. */
function blockBackward(device: Device, sets: readonly ReturnType<typeof makeBlock>[], calls: number): number {
  return scope(() => {
    const given = gradientsLike((sets[0] as ReturnType<typeof makeBlock>).fused());
    const forward = sets.map(({ fused }) => fused);
    const both = sets.map(
      ({ fused, inputs }) =>
        () =>
          grad(fused(), inputs, given),
    );
    return Math.max(0, microsecondsOf(device, both, calls) - microsecondsOf(device, forward, calls));
  });
}

function updateRow(shape: Shape, ceilings: Ceilings, calls: number): OperatorRow {
  const cost = updateCost(shape);
  const floor = floorOf(cost, ceilings);
  const microseconds = scope(() => microsecondsOf(shape.device, [makeUpdate(shape)], calls));
  const name = 'all weights: clipping, AdamW, averages, copies';
  return { name, pass: 'update', times: 0, ...cost, microseconds, plain: null, floor, distance: microseconds / floor };
}

/** Microseconds that no version is much faster than. */
const floorOf = ({ bytes, flops }: Cost, ceilings: Ceilings): number => Math.max(bytes / ceilings.bytes, flops / ceilings.flops) * 1e6;

/** As many sets of inputs as go beyond the cache. */
function inSets<T>(bytes: number, make: (seed: number) => T): T[] {
  return Array.from({ length: Math.min(MOST_SETS, Math.max(2, Math.ceil(BEYOND_CACHE / bytes))) }, (_, i) => make(i));
}

/** Microseconds of one call, of several that are taken in turn: on a GPU what its kernels take, not what it costs to launch them. */
export function microsecondsOf(device: Device, works: readonly (() => unknown)[], calls: number): number {
  const call = (i: number): void => scope(() => void (works[i % works.length] as () => unknown)());
  for (const i of works.keys()) call(i);
  const all = (): void => {
    for (let i = 0; i < calls; i++) call(i);
  };
  if (device === 'cpu') return timesOf(Array.from({ length: calls }, (_, i) => clock(device, () => call(i)))).median * 1000;
  const sum = profile(all).kernels.reduce((total, { microseconds }) => total + microseconds, 0);
  return (sum > 0 ? sum : clock(device, all) * 1000) / calls;
}

function measureCeilings(shape: Shape, calls: number): Ceilings {
  const { device, compute } = shape;
  const [length, side] = device === 'cpu' ? [2 ** 24, 1024] : [2 ** 28, 8192];
  const copy = scope(() => {
    const [from, to] = [numbers(shape, 0, 'from', [length], 'float32'), numbers(shape, 0, 'to', [length], 'float32')];
    return microsecondsOf(device, [() => to.copy_(from)], calls);
  });
  const product = scope(() => {
    const [a, b] = [numbers(shape, 0, 'a', [side, side], compute), numbers(shape, 0, 'b', [side, side], compute)];
    return microsecondsOf(device, [() => a.matmul(b)], calls);
  });
  return { bytes: (8 * length) / (copy / 1e6), flops: (2 * side ** 3) / (product / 1e6) };
}

interface Pair {
  readonly fused: number;
  readonly plain: number;
}

function forwardTime(device: Device, sets: readonly Instance[], calls: number): Pair {
  const time = (form: 'fused' | 'plain'): number =>
    noGrad(() =>
      microsecondsOf(
        device,
        sets.map((set) => set[form]),
        calls,
      ),
    );
  return { fused: time('fused'), plain: time('plain') };
}

function backwardTime(device: Device, sets: readonly Instance[], calls: number): Pair {
  const time = (form: 'fused' | 'plain'): number =>
    scope(() =>
      microsecondsOf(
        device,
        sets.map((set) => gradientOf(set[form](), set.inputs)),
        calls,
      ),
    );
  return { fused: time('fused'), plain: time('plain') };
}

const gradientsLike = (outputs: readonly Tensor[]): Tensor[] =>
  outputs.map((output, i) => randn(key(i, 'gradient'), 0, output.shape, { dtype: output.dtype, device: output.device }));

/** The backward pass of outputs that are there already, as often as one likes. */
function gradientOf(outputs: readonly Tensor[], inputs: readonly Tensor[]): () => unknown {
  const given = gradientsLike(outputs);
  return () => grad(outputs, inputs, given, { retainGraph: true });
}

function productTimes(shape: Shape, { name, rows, into, out }: ReturnType<typeof blockProducts>[number], calls: number): ProductRow[] {
  const { device, compute } = shape;
  return scope(() => {
    const sets = inSets(rows * (into + out) * 2, (seed) => ({
      x: numbers(shape, seed, 'x', [rows, into], compute),
      w: numbers(shape, seed, 'w', [out, into], compute),
      g: numbers(shape, seed, 'g', [rows, out], compute),
    }));
    const passes = {
      forward: sets.map(
        ({ x, w }) =>
          () =>
            linear(x, w),
      ),
      dx: sets.map(
        ({ g, w }) =>
          () =>
            g.matmul(w),
      ),
      dw: sets.map(
        ({ g, x }) =>
          () =>
            g.transpose(0, 1).matmul(x),
      ),
    };
    return (['forward', 'dx', 'dw'] as const).map((pass): ProductRow => {
      const microseconds = microsecondsOf(device, passes[pass], calls);
      return { name, pass, shape: [rows, into, out], microseconds, flopsPerSecond: (2 * rows * into * out) / (microseconds / 1e6) };
    });
  });
}

/** libtorch's kernels on q, k and v that are ready for them: no norm, no rotation, no change of layout. */
function attentionTimes(shape: Shape, calls: number): AttentionRow[] {
  const { model, batch, device, compute } = shape;
  const size = [batch, model.heads, tokens(model), model.width / model.heads];
  const make = (seed: number): Tensor[] => ['q', 'k', 'v'].map((name) => numbers(shape, seed, name, size, compute, true));
  const tried = (time: () => number): number | null => {
    try {
      return scope(time);
    } catch {
      return null; // it is not made for this device, type or shape
    }
  };
  return scope(() => {
    const sets = inSets(
      size.reduce((a, b) => a * b, 2 * 3),
      make,
    ) as [Tensor, Tensor, Tensor][];
    return attentionKernels().map(({ name, attend }) => ({
      name,
      forward: tried(() =>
        noGrad(() =>
          microsecondsOf(
            device,
            sets.map((qkv) => () => attend(...qkv)),
            calls,
          ),
        ),
      ),
      backward: tried(() =>
        microsecondsOf(
          device,
          sets.map((qkv) => gradientOf([attend(...qkv)], qkv)),
          calls,
        ),
      ),
    }));
  });
}

function showOperators(rows: readonly OperatorRow[]): string[] {
  return markdown(
    ['operator', 'pass', 'us', 'MB', 'GFLOP', 'floor, us', 'times the floor', 'composition, us', 'composition / ours'],
    rows.map(({ name, pass, microseconds, bytes, flops, floor, distance, plain }) => [
      ...[name, pass, figure(microseconds), figure(bytes / 1e6), figure(flops / 1e9), figure(floor), figure(distance)],
      ...[shown(plain), shown(plain === null ? null : plain / microseconds)],
    ]),
    [2, 3, 4, 5, 6, 7, 8],
  );
}

function showProducts(rows: readonly ProductRow[], ceilings: Ceilings): string[] {
  return markdown(
    ['matrix product', 'pass', 'rows x in x out', 'us', 'TFLOP/s', "of the square one's"],
    rows.map(({ name, pass, shape, microseconds, flopsPerSecond }) => [
      ...[name, pass, shape.join(' x '), figure(microseconds), figure(flopsPerSecond / 1e12)],
      `${figure((100 * flopsPerSecond) / ceilings.flops)} %`,
    ]),
    [3, 4, 5],
  );
}

function showAttention(rows: readonly AttentionRow[], { model, batch }: Shape): string[] {
  if (rows.length === 0) return ['this libtorch has no attention kernels to compare with'];
  const N = tokens(model);
  const rate = (us: number | null, flops: number): string => shown(us === null ? null : flops / us / 1e6);
  const flops = 4 * batch * N * N * model.width;
  return markdown(
    ["libtorch's attention alone", 'forward, us', 'TFLOP/s', 'backward, us', 'TFLOP/s'],
    rows.map(({ name, forward, backward }) => [
      ...[name, shown(forward), rate(forward, flops), shown(backward), rate(backward, 2.5 * flops)],
    ]),
    [1, 2, 3, 4],
  );
}

/** A block, forward and backward, from its parts. */
function summary(operators: readonly OperatorRow[], products: readonly ProductRow[], ceilings: Ceilings): string {
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const ours = sum(operators.map((row) => row.times * row.microseconds));
  const floor = sum(operators.map((row) => row.times * row.floor));
  const dense = sum(products.map((row) => row.microseconds));
  const least = sum(products.map(({ shape: [m, k, n] }) => ((2 * m * k * n) / ceilings.flops) * 1e6));
  return `a block, forward and backward: ${figure(dense)} us of matrix products (${figure(least)} at the square one's rate) and ${figure(ours)} us of the rest (floor ${figure(floor)})`;
}

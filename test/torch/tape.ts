/**
 * CUDA graphs without a device: the addon's calls are written down on a tape and made again, with the tensors that the replay itself made in the place of
 * those of the capture. As in a graph, every number of JavaScript is what it was: what then equals the same work done anew each time depends on tensors
 * alone, and takes no values from the host.
 */
import { Graph, noGrad, scope, Tensor } from '../../src/torch/index.js';
import { type Native, native } from '../../src/torch/native.js';

type Recorded = 'call' | 'grad' | 'gradMode';
type Loose = (...args: unknown[]) => unknown;

interface Tape {
  readonly calls: { readonly name: Recorded; readonly args: readonly unknown[]; readonly result: unknown }[];
  /** Handles of what the captured work made. */
  readonly made: Set<number>;
  /** Of tensors from outside that it changed, copies of what they were. */
  readonly before: Map<number, Tensor>;
}

const isHandle = (value: unknown): value is number => typeof value === 'number' && value >= 2 ** 52 && value < 2 ** 53;
const handlesIn = (value: unknown): number[] => (Array.isArray(value) ? value.flatMap(handlesIn) : isHandle(value) ? [value] : []);
const set = (handle: number, from: Tensor): void => noGrad(() => scope(() => void new Tensor(handle).detach().copy_(from)));

/** By the index of the operator. An operator is looked up once in a process. */
const changesArguments: boolean[] = [];

/** Runs `fn` with a CPU that can capture. To be called before any operator is. */
export async function withTapes(fn: () => Promise<void>): Promise<void> {
  const addon = native();
  const own: Native = { ...addon };
  const { supports } = Graph;
  const tapes = new Map<number, Tape>();
  let recording: Tape | undefined;

  /** What a capture changes it does not change yet: it is put back when the capture ends. */
  const keepValues = (tape: Tape, handles: readonly number[]): void => {
    recording = undefined;
    for (const handle of handles)
      if (!tape.made.has(handle) && !tape.before.has(handle)) {
        const copy = noGrad(() => scope(() => new Tensor(handle).detach().clone()));
        own.keep(copy.handle);
        tape.before.set(handle, copy);
      }
    recording = tape;
  };
  const recorded =
    (name: Recorded): Loose =>
    (...args) => {
      if (recording && name === 'call' && changesArguments[args[0] as number]) keepValues(recording, handlesIn(args.slice(1)));
      const result = (own[name] as Loose)(...args);
      recording?.calls.push({ name, args, result });
      for (const handle of handlesIn(result)) recording?.made.add(handle);
      return result;
    };
  const refused =
    (name: 'fromData' | 'toData' | 'upload'): Loose =>
    (...args) => {
      if (recording) throw new Error(`${name} cannot be captured`);
      return (own[name] as Loose)(...args);
    };
  const replay = ({ calls, made }: Tape): void => {
    scope(() => {
      const now = new Map<number, number>();
      const mapped = (value: unknown): unknown =>
        Array.isArray(value) ? value.map(mapped) : isHandle(value) ? (now.get(value) ?? value) : value;
      const pair = (then: unknown, is: unknown): void => {
        if (isHandle(then)) now.set(then, is as number);
        else if (Array.isArray(then)) then.forEach((value, i) => void pair(value, (is as unknown[])[i]));
      };
      for (const { name, args, result } of calls) pair(result, (own[name] as Loose)(...args.map(mapped)));
      for (const handle of made) if (own.alive(handle)) set(handle, new Tensor(now.get(handle) as number));
    });
  };

  Object.assign(addon, {
    resolve: (name: string): number => {
      const index = own.resolve(name);
      changesArguments[index] = /_(\.\w+)?$/.test(name) || (own.schema(name)?.includes('!') ?? false);
      return index;
    },
    ...{ call: recorded('call'), grad: recorded('grad'), gradMode: recorded('gradMode') },
    ...{ fromData: refused('fromData'), toData: refused('toData'), upload: refused('upload') },
    graphBegin: (): void => {
      recording = { calls: [], made: new Set(), before: new Map() };
    },
    graphEnd: (keep: boolean): number | undefined => {
      const tape = recording as Tape;
      recording = undefined;
      for (const [handle, copy] of tape.before) {
        set(handle, copy);
        copy.dispose();
      }
      if (keep) tapes.set(tapes.size + 1, tape);
      return keep ? tapes.size : undefined;
    },
    graphReplay: (id: number): void => replay(tapes.get(id) as Tape),
    graphFree: (): void => {},
  });
  Graph.supports = () => true;
  try {
    await fn();
  } finally {
    Object.assign(addon, own, { resolve: addon.resolve });
    Graph.supports = supports;
  }
}

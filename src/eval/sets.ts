/**
 * Sets of pictures as they are judged: from a data set, an `.npz`, a folder, or drawn by a model. Read in pieces, so that a set may be larger
 * than memory.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { FailureError, UsageError } from '../core/errors.js';
import { type ImageSource, stack } from '../data/source.js';
import { npzNames, readNpz } from '../io/npz.js';
import { type Device, type Tensor, tensor } from '../torch/index.js';
import { spread } from './pictures.js';
import { openSamples } from './references.js';

export interface PictureSet {
  /** For messages and the protocol. */
  readonly name: string;
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
  /** The class of each picture, or that it was asked to be of; undefined where they have none. */
  readonly labels: readonly number[] | undefined;
  /** Pictures first, first + 1, ..., as (count, height, width, channels) uint8. Asked for in order, each once. */
  read(first: number, count: number): Promise<Uint8Array>;
  close(): void;
}

/** Pictures of a source, by their indices. */
export function ofSource(source: ImageSource, indices: readonly number[]): PictureSet {
  return {
    name: source.name,
    count: indices.length,
    height: source.size,
    width: source.size,
    channels: source.channels,
    labels: indices.map((i) => source.label(i)),
    read: (first, count) => stack(source, indices.slice(first, first + count)),
    close: () => {},
  };
}

/**
 * The pictures of an `.npz`: `arr_0`, and in `arr_1` their classes, if it is there.
 * @param count so many, evenly spread; all if not given
 * @throws UsageError for a file without pictures, or with fewer than `count`; FailureError for arrays that are no pictures or labels; NpzError; DiskError
 */
export function ofNpz(path: string, count?: number): PictureSet {
  const rows = openSamples(path);
  const [length, height, width, channels] = rows.shape;
  try {
    const labels = npzNames(path).includes('arr_1') ? labelsOf(path, length) : undefined;
    const places = choose(path, length, count);
    return {
      ...{ name: path, count: places.length, height, width, channels: channels as 1 | 3 },
      labels: labels && places.map((i) => labels[i] as number),
      read: async (first, some) => {
        const wanted = places.slice(first, first + some);
        const [from, to] = [wanted[0] ?? 0, wanted.at(-1) ?? -1];
        if (to - from + 1 === wanted.length) return rows.read(from, wanted.length);
        return Buffer.concat(wanted.map((i) => rows.read(i, 1)));
      },
      close: () => rows.close(),
    };
  } catch (error) {
    rows.close();
    throw error;
  }
}

function labelsOf(path: string, length: number): number[] {
  const { dtype, shape, data } = readNpz(path, ['arr_1']).get('arr_1')!;
  if ((dtype !== 'int64' && dtype !== 'uint8') || shape.length !== 1 || shape[0] !== length)
    throw new FailureError(
      `${path}: 'arr_1' is ${dtype} of the shape (${shape.join(', ')}), and the classes of ${length} pictures are int64 (${length})`,
    );
  const labels = Array.from(data as ArrayLike<number | bigint>, Number);
  const wrong = labels.findIndex((label) => !Number.isSafeInteger(label) || label < 0);
  if (wrong >= 0) throw new FailureError(`${path}: 'arr_1' has ${labels[wrong]} at ${wrong}, and classes are numbers from 0`);
  return labels;
}

/** Which of `length` pictures are `count` of them. @throws UsageError for more than there are */
export function choose(name: string, length: number, count = length): number[] {
  if (count > length) throw new UsageError(`${count} pictures were asked for, and ${name} has ${length}`);
  return spread(length, count);
}

/**
 * The same pictures in another number of channels: grey is repeated to three, and of grey pictures stored as colours, as sample files do, one
 * channel is taken.
 * @throws UsageError on reading, for a picture with colours where grey is wanted
 */
export function inChannels(set: PictureSet, channels: 1 | 3): PictureSet {
  if (set.channels === channels) return set;
  const read = async (first: number, count: number): Promise<Uint8Array> => {
    const from = await set.read(first, count);
    if (channels === 3) return Uint8Array.from({ length: from.length * 3 }, (_, i) => from[Math.floor(i / 3)] as number);
    const each = set.height * set.width;
    return Uint8Array.from({ length: from.length / 3 }, (_, i) => {
      const value = from[3 * i] as number;
      if (value !== from[3 * i + 1] || value !== from[3 * i + 2])
        throw new UsageError(`${set.name}: picture ${first + Math.floor(i / each)} has colours, and those to compare with are grey`);
      return value;
    });
  };
  return { ...set, channels, read };
}

/** Bytes of the most pictures that are kept beside a reference's statistics. */
const MOST_KEPT = 2 ** 30;
/** Pictures read at a time. */
const PIECE = 128;

/**
 * All pictures of some sets in colours, as ADM's evaluator wants them in `arr_0`; undefined where they would take more than a gibibyte.
 * @throws PictureError, NpzError, DiskError
 */
export async function inColours(
  sets: readonly PictureSet[],
): Promise<{ readonly shape: [number, number, number, number]; readonly data: Uint8Array } | undefined> {
  const [{ height, width }] = sets as readonly [PictureSet];
  const each = height * width * 3;
  const count = sets.reduce((sum, set) => sum + set.count, 0);
  if (count * each > MOST_KEPT) return undefined;
  const data = new Uint8Array(count * each);
  let at = 0;
  for (const set of sets.map((each) => inChannels(each, 3)))
    for (let first = 0; first < set.count; first += PIECE) {
      const some = Math.min(PIECE, set.count - first);
      data.set(await set.read(first, some), at);
      await turn();
      at += some * each;
    }
  return { shape: [count, height, width, 3], data };
}

/** Bytes of a piece of a set as a tensor on the device; the event loop gets a turn first, so that signals are heard. The caller's to dispose. */
export async function readTensor(set: PictureSet, first: number, count: number, device: Device): Promise<Tensor> {
  const pixels = await set.read(first, count);
  await turn();
  return tensor(pixels, [count, set.height, set.width, set.channels], { dtype: 'uint8', device });
}

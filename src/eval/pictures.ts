/** Pictures of a data source as tensors. */
import { setImmediate as turn } from 'node:timers/promises';
import { checkIndex, type ImageSource, stack } from '../data/source.js';
import { type Device, type Tensor, tensor } from '../torch/index.js';

/** The pictures with these indices: (B, H, H, ch) uint8. The caller's to dispose. @throws PictureError for one that cannot be read */
export async function pictures(source: ImageSource, indices: readonly number[], device: Device): Promise<Tensor> {
  const pixels = await stack(source, indices);
  await turn(); // pictures in memory never leave the microtask queue, and signal handlers must get to run
  return tensor(pixels, [indices.length, source.size, source.size, source.channels], { dtype: 'uint8', device });
}

/** Some pictures of a source as a source of their own. */
export function subset(source: ImageSource, indices: readonly number[]): ImageSource {
  const { name, size, channels, classes } = source;
  const at = (i: number): number => indices[checkIndex({ name, length: indices.length }, i)] as number;
  return {
    ...{ name, size, channels, classes, length: indices.length },
    label: (i) => source.label(at(i)),
    path: (i) => source.path(at(i)),
    peek: (i) => source.peek(at(i)),
    load: (i, decode) => source.load(at(i), decode),
  };
}

/**
 * `count` of `length` places, evenly spread and all different: of a folder sorted by class a fair share of each. All in order where count
 * is length.
 */
export function spread(length: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor((i * length) / count));
}

/** Consecutive pieces of at most `size`. */
export function* batches<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size);
}

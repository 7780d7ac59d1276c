/** What reconstruction is worth beside nothing: the error of one and the same picture for all. */
import { type ImageSource, pictureBytes, stack } from '../../data/source.js';
import { batches, spread } from '../../eval/pictures.js';

/** Pictures that the median is taken over, at most. */
const FITTED = 2000;
const BATCH = 128;

/**
 * Mean absolute error, on a scale of 2, of held-out pictures against the training pictures' median, value by value: no decoder that is told nothing
 * of a picture can do better by much.
 * @param measured held-out pictures, evenly spread
 * @throws PictureError
 */
export async function blankError(train: ImageSource, heldOut: ImageSource, measured: number): Promise<number> {
  const values = pictureBytes(train);
  const counts = new Uint16Array(values * 256);
  const fitted = Math.min(FITTED, train.length);
  for await (const pixels of pieces(train, fitted)) for (let i = 0; i < pixels.length; i++) counts[(i % values) * 256 + pixels[i]!]!++;
  const median = Uint8Array.from({ length: values }, (_, i) => {
    let [level, below] = [0, counts[i * 256]!];
    while (below * 2 < fitted) below += counts[i * 256 + ++level]!;
    return level;
  });
  let [error, seen] = [0, 0];
  for await (const pixels of pieces(heldOut, Math.min(measured, heldOut.length))) {
    for (let i = 0; i < pixels.length; i++) error += Math.abs(pixels[i]! - median[i % values]!);
    seen += pixels.length;
  }
  return error / seen / 127.5;
}

async function* pieces(source: ImageSource, count: number): AsyncGenerator<Uint8Array> {
  for (const indices of batches(spread(source.length, count), BATCH)) yield await stack(source, indices);
}

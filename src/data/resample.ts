/**
 * Resizing of 8-bit pictures, equal to the bit to Pillow's `Image.resize`, because Frechet distances move when it is not (Parmar, Zhang, Zhu:
 * "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022). The arithmetic is native/pictures/resize.cc.
 */
import { type Filter, resizer } from './resizer.js';

/** A picture in memory: height * width * channels bytes, row by row, channels together. */
export interface Pixels {
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
}

/** A rectangle of whole pixels. */
export interface Window {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Resizes a picture.
 * @param window the part of the resized picture to compute; all of it if absent. Equal to resizing and then cropping, at the cost of the part
 *   alone: a picture of 1 x 100,000 pixels resized by its smaller side would not fit in memory.
 * @returns window.height * window.width * channels bytes
 * @throws RangeError for sides below 1 or not whole, a window beyond the resized picture, or where memory runs out; FailureError if the addon is not there
 */
export function resample(
  source: Pixels,
  width: number,
  height: number,
  filter: Filter,
  window: Window = { x: 0, y: 0, width, height },
): Uint8Array<ArrayBuffer> {
  const { channels } = source;
  const out = new Uint8Array(window.height * window.width * channels);
  resizer().resize(
    ...([source.pixels, source.width, source.height, channels, width, height, filter] as const),
    ...([window.x, window.y, window.width, window.height, out] as const),
  );
  return out;
}

/**
 * The square of `size` pixels in the middle of a picture, in the way of ADM (Dhariwal and Nichol: "Diffusion Models Beat GANs on Image
 * Synthesis", 2021, and every ImageNet repository since): halved with a box filter while the smaller side is at least twice the size, then
 * bicubic until the smaller side is the size, then cropped.
 * @returns size * size * channels bytes
 */
export function centreSquare(source: Pixels, size: number): Uint8Array<ArrayBuffer> {
  let image = source;
  while (Math.min(image.width, image.height) >= 2 * size) {
    const width = image.width >> 1;
    const height = image.height >> 1;
    image = { pixels: resample(image, width, height, 'box'), width, height, channels: image.channels };
  }
  const scale = size / Math.min(image.width, image.height);
  const width = roundHalfEven(image.width * scale);
  const height = roundHalfEven(image.height * scale);
  return resample(image, width, height, 'bicubic', { x: (width - size) >> 1, y: (height - size) >> 1, width: size, height: size });
}

/** As Python rounds, so that the crop is theirs to the pixel. */
function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

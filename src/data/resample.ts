/**
 * Resizing of 8-bit pictures, equal to the bit to Pillow's `Image.resize`, because Frechet distances move when it is not (Parmar, Zhang, Zhu:
 * "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022). Like Pillow's it is separable, widens the filter when it
 * shrinks a picture, uses weights in fixed point of 22 bits, and rounds to 8 bits between the horizontal and the vertical pass.
 */

/** A picture in memory: height * width * channels bytes, row by row, channels together. */
export interface Pixels {
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/** A rectangle of whole pixels. */
export interface Window {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export type Filter = 'box' | 'bicubic' | 'lanczos';

const FILTERS: Record<Filter, { readonly support: number; readonly at: (x: number) => number }> = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x)) },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Keys' cubic with a = -1/2. */
function cubic(x: number): number {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Weights are integers of this many fractional bits: 255 times a filter's overshoot still fits an int32. */
const BITS = 22;

/**
 * Resizes a picture.
 * @param window the part of the resized picture to compute; all of it if absent. Equal to resizing and then cropping, at the cost of the part
 *   alone: a picture of 1 x 100,000 pixels resized by its smaller side would not fit in memory.
 * @returns window.height * window.width * channels bytes
 */
export function resample(
  source: Pixels,
  width: number,
  height: number,
  filter: Filter,
  window: Window = { x: 0, y: 0, width, height },
): Uint8Array<ArrayBuffer> {
  const { channels } = source;
  const down = taps(source.height, height, window.y, window.height, filter);
  const across = taps(source.width, width, window.x, window.width, filter);
  // The rows that the vertical pass will look at.
  const top = down.first[0]!;
  const last = window.height - 1;
  const rows = down.first[last]! + down.count[last]! - top;

  const narrow = new Uint8Array(rows * window.width * channels);
  for (let row = 0; row < rows; row++) {
    const from = (top + row) * source.width * channels;
    const to = row * window.width * channels;
    for (let x = 0; x < window.width; x++)
      gather(source.pixels, from + across.first[x]! * channels, channels, across, x, narrow, to + x * channels, channels);
  }

  const out = new Uint8Array(window.height * window.width * channels);
  const stride = window.width * channels;
  for (let y = 0; y < window.height; y++) gather(narrow, (down.first[y]! - top) * stride, stride, down, y, out, y * stride, stride);
  return out;
}

interface Taps {
  /** For each output position: the first input position, how many, and their weights from `position * most`. */
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
  readonly most: number;
}

/** The weights of output positions `start` ... `start + count - 1` when `input` positions become `output`. */
function taps(input: number, output: number, start: number, count: number, filter: Filter): Taps {
  const { support, at } = FILTERS[filter];
  const scale = input / output;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  const most = Math.ceil(reach) * 2 + 1;
  const result = { first: new Int32Array(count), count: new Int32Array(count), weights: new Int32Array(count * most), most };
  const exact = new Float64Array(most);
  for (let i = 0; i < count; i++) {
    if (input === output) {
      // Pillow leaves out a pass that changes no size, even where the filter would blur.
      result.first[i] = start + i;
      result.count[i] = 1;
      result.weights[i * most] = 1 << BITS;
      continue;
    }
    const centre = (start + i + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - reach + 0.5));
    const n = Math.min(input, Math.trunc(centre + reach + 0.5)) - from;
    let sum = 0;
    for (let k = 0; k < n; k++) {
      exact[k] = at((from + k - centre + 0.5) * (1 / stretch));
      sum += exact[k]!;
    }
    for (let k = 0; k < n; k++) {
      const weight = sum === 0 ? exact[k]! : exact[k]! * (1 / sum);
      result.weights[i * most + k] = Math.trunc(weight * (1 << BITS) + (weight < 0 ? -0.5 : 0.5));
    }
    result.first[i] = from;
    result.count[i] = n;
  }
  return result;
}

/** One output position of a pass: `length` neighbouring bytes, each a weighted sum of bytes that lie `stride` apart. */
function gather(
  from: Uint8Array,
  start: number,
  stride: number,
  by: Taps,
  position: number,
  to: Uint8Array,
  at: number,
  length: number,
): void {
  const n = by.count[position]!;
  const base = position * by.most;
  for (let c = 0; c < length; c++) {
    let sum = 1 << (BITS - 1);
    for (let k = 0, p = start + c; k < n; k++, p += stride) sum += from[p]! * by.weights[base + k]!;
    const value = sum >> BITS;
    to[at + c] = value < 0 ? 0 : value > 255 ? 255 : value;
  }
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

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
  const stride = window.width * channels;
  const out = new Uint8Array(window.height * stride);
  const down = height === source.height ? undefined : taps(source.height, height, window.y, window.height, filter);
  // The rows that the vertical pass will look at.
  const last = window.height - 1;
  const top = down === undefined ? window.y : down.first[0]!;
  const rows = down === undefined ? window.height : down.first[last]! + down.count[last]! - top;

  // Pillow leaves out a pass that changes no size, even where the filter would blur.
  const narrow = down === undefined ? out : new Uint8Array(rows * stride);
  if (width === source.width) cut(source, window.x, top, rows, narrow, stride);
  else passAcross(source, top, rows, taps(source.width, width, window.x, window.width, filter), narrow);
  if (down !== undefined) passDown(narrow, stride, top, down, out);
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

/** Rows as they are, from column `left` on. */
function cut({ pixels, width, channels }: Pixels, left: number, top: number, rows: number, to: Uint8Array, stride: number): void {
  for (let row = 0; row < rows; row++) {
    const from = ((top + row) * width + left) * channels;
    to.set(pixels.subarray(from, from + stride), row * stride);
  }
}

const HALF = 1 << (BITS - 1);

/**
 * The horizontal pass: each of `rows` rows from `top` on becomes as wide as there are taps. The sums are kept in variables, since this and the pass
 * below are most of the time that a picture takes; an array that clamps rounds nothing here, as it is given integers.
 */
function passAcross({ pixels, width, channels }: Pixels, top: number, rows: number, by: Taps, to: Uint8Array<ArrayBuffer>): void {
  const { first, count, weights, most } = by;
  const out = new Uint8ClampedArray(to.buffer);
  let at = 0;
  for (let row = top; row < top + rows; row++) {
    const from = row * width * channels;
    for (let x = 0; x < first.length; x++) {
      const begin = x * most;
      const end = begin + count[x]!;
      let p = from + first[x]! * channels;
      if (channels === 3) {
        let [r, g, b] = [HALF, HALF, HALF];
        for (let k = begin; k < end; k++, p += 3) {
          const weight = weights[k]!;
          r = (r + Math.imul(pixels[p]!, weight)) | 0;
          g = (g + Math.imul(pixels[p + 1]!, weight)) | 0;
          b = (b + Math.imul(pixels[p + 2]!, weight)) | 0;
        }
        out[at] = r >> BITS;
        out[at + 1] = g >> BITS;
        out[at + 2] = b >> BITS;
        at += 3;
      } else
        for (let c = 0; c < channels; c++) {
          let sum = HALF;
          for (let k = begin, q = p + c; k < end; k++, q += channels) sum = (sum + Math.imul(pixels[q]!, weights[k]!)) | 0;
          out[at++] = sum >> BITS;
        }
    }
  }
}

/** The vertical pass over rows of `stride` bytes, of which the first is row `top` of the taps. Four rows are added at a time. */
function passDown(from: Uint8Array, stride: number, top: number, by: Taps, to: Uint8Array<ArrayBuffer>): void {
  const { first, count, weights, most } = by;
  const out = new Uint8ClampedArray(to.buffer);
  const sums = new Int32Array(stride);
  for (let y = 0; y < first.length; y++) {
    const end = y * most + count[y]!;
    sums.fill(HALF);
    for (let k = y * most, p = (first[y]! - top) * stride; k < end; k += 4, p += 4 * stride) {
      // A row that is not there has weight 0, and stands where the first does.
      const [n, w0] = [end - k, weights[k]!];
      const [w1, p1] = n > 1 ? [weights[k + 1]!, p + stride] : [0, p];
      const [w2, p2] = n > 2 ? [weights[k + 2]!, p + 2 * stride] : [0, p];
      const [w3, p3] = n > 3 ? [weights[k + 3]!, p + 3 * stride] : [0, p];
      for (let i = 0; i < stride; i++)
        sums[i] =
          (sums[i]! +
            Math.imul(from[p + i]!, w0) +
            Math.imul(from[p1 + i]!, w1) +
            Math.imul(from[p2 + i]!, w2) +
            Math.imul(from[p3 + i]!, w3)) |
          0;
    }
    for (let i = 0, at = y * stride; i < stride; i++) out[at + i] = sums[i]! >> BITS;
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

/**
 * Pillow's resizing written down in JavaScript, without care for speed or windows: what native/pictures/ must equal to the bit on
 * sizes that no fixture has. It is separable, widens the filter when it shrinks a picture, uses weights in fixed point of 22 bits, and rounds to 8 bits
 * between the horizontal and the vertical pass.
 */
import type { Pixels } from '../../src/data/resample.js';
import type { Filter } from '../../src/data/resizer.js';

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

/** For each of `output` positions the first of `input` positions, and the weights from there on: integers of 22 fractional bits. */
function taps(input: number, output: number, filter: Filter): { first: number; weights: number[] }[] {
  const { support, at } = FILTERS[filter];
  const scale = input / output;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: output }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(input, Math.trunc(centre + reach + 0.5));
    const exact = Array.from({ length: end - first }, (_, k) => at((first + k - centre + 0.5) * (1 / stretch)));
    const sum = exact.reduce((total, weight) => total + weight, 0);
    const weights = exact.map((one) => {
      const weight = sum === 0 ? one : one * (1 / sum);
      return Math.trunc(weight * 2 ** 22 + (weight < 0 ? -0.5 : 0.5));
    });
    return { first, weights };
  });
}

/** Resizes one side of a picture; a pass that changes no size is left out, even where the filter would blur. */
function pass(source: Pixels, output: number, side: 'width' | 'height', filter: Filter): Pixels {
  if (source[side] === output) return source;
  const to = { ...source, [side]: output };
  const pixels = new Uint8ClampedArray(to.width * to.height * to.channels);
  const by = taps(source[side], output, filter);
  const at = (x: number, y: number, c: number): number => source.pixels[(y * source.width + x) * source.channels + c]!;
  let next = 0;
  for (let y = 0; y < to.height; y++)
    for (let x = 0; x < to.width; x++)
      for (let c = 0; c < to.channels; c++) {
        const { first, weights } = by[side === 'width' ? x : y]!;
        let sum = 2 ** 21;
        for (const [k, weight] of weights.entries()) sum += weight * (side === 'width' ? at(first + k, y, c) : at(x, first + k, c));
        pixels[next++] = sum >> 22;
      }
  return { ...to, pixels: new Uint8Array(pixels.buffer) };
}

/** width * height * channels bytes. */
export function resampleOracle(source: Pixels, width: number, height: number, filter: Filter): Uint8Array {
  return pass(pass(source, width, 'width', filter), height, 'height', filter).pixels;
}

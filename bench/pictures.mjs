/**
 * Makes a folder of JPEGs for `dsd bench data` and `dsd bench train --data`: as long to decode as photographs, which neither noise nor one colour is.
 *
 *     node bench/pictures.mjs FOLDER [count 4096] [side 256] [classes 16] [quality 90]
 *
 * Each is noise of several widths, the wide ones stronger, as in photographs; the mean size of a file is printed.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';

const [folder, ...numbers] = process.argv.slice(2);
const [count = 4096, side = 256, classes = 16, quality = 90] = numbers.map(Number);
if (folder === undefined || ![count, side, classes, quality].every((n) => Number.isInteger(n) && n > 0)) {
  process.stderr.write('node bench/pictures.mjs FOLDER [count 4096] [side 256] [classes 16] [quality 90]\n');
  process.exit(2);
}
if (existsSync(folder)) {
  process.stderr.write(`'${folder}' exists: name a folder that does not\n`);
  process.exit(2);
}

/** Numbers in [0, 1), a function of the seed. */
function* uniform(seed) {
  for (let state = (seed + 1) * 2654435761; ; ) {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    yield ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }
}

/** Grids of noise of 4, 8, 16, ... cells, each brought to full size each three quarters as strong as the one before. */
function picture(seed) {
  const next = uniform(seed);
  const sums = new Float32Array(side * side * 3);
  for (let cells = 4, strength = 1; cells <= side; cells *= 2, strength *= 0.75) {
    const grid = Float32Array.from({ length: (cells + 1) ** 2 * 3 }, () => next.next().value - 0.5);
    for (let y = 0; y < side; y++) {
      const v = (y / side) * cells;
      for (let x = 0; x < side; x++) {
        const u = (x / side) * cells;
        const [x0, y0] = [Math.floor(u), Math.floor(v)];
        for (let c = 0; c < 3; c++) {
          const at = (i, j) => grid[((y0 + j) * (cells + 1) + x0 + i) * 3 + c];
          const [top, bottom] = [at(0, 0) + (at(1, 0) - at(0, 0)) * (u - x0), at(0, 1) + (at(1, 1) - at(0, 1)) * (u - x0)];
          sums[(y * side + x) * 3 + c] += strength * (top + (bottom - top) * (v - y0));
        }
      }
    }
  }
  return Uint8Array.from(sums, (value) => Math.min(255, Math.max(0, 128 + 110 * value)));
}

for (let label = 0; label < classes; label++) mkdirSync(join(folder, `class-${label}`), { recursive: true });
// A few are made; the rest are these with their rows shifted, which costs nothing to make and as much to decode.
const originals = Array.from({ length: Math.min(count, 24) }, (_, i) => picture(i));
let [next, bytes] = [0, 0];
const worker = async () => {
  while (next < count) {
    const i = next++;
    const original = originals[i % originals.length];
    const shift = (Math.floor(i / originals.length) % side) * side * 3;
    const pixels = Buffer.concat([original.subarray(shift), original.subarray(0, shift)]);
    const file = join(folder, `class-${i % classes}`, `${i}.jpg`);
    const raw = { width: side, height: side, channels: 3 };
    const { size } = await sharp(pixels, { raw }).jpeg({ quality }).toFile(file);
    bytes += size;
  }
};
await Promise.all(Array.from({ length: availableParallelism() }, worker));
process.stdout.write(`${count} JPEGs of ${side} x ${side} in ${classes} classes, ${(bytes / count / 1000).toFixed(1)} kB each\n`);

/** Pictures that are a function of their index, for tests that must not depend on a decoder: a disc on a gradient. */
import { MemorySource } from '../../src/data/source.js';

export function discs(length: number, size: number, channels: 1 | 3 = 3): MemorySource {
  const pixels = new Uint8Array(length * size * size * channels);
  for (let i = 0, at = 0; i < length; i++) {
    const [cx, cy, radius] = [(i * 7) % size, (i * 11) % size, 2 + ((i * 5) % (size / 3))];
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const inside = (x - cx) ** 2 + (y - cy) ** 2 < radius ** 2;
        for (let c = 0; c < channels; c++) pixels[at++] = inside ? (c === i % 4 ? 220 : 40) : 90 + ((x + 2 * y + 37 * i) % 64);
      }
    }
  }
  const labels = Array.from({ length }, (_, i) => i % 4);
  return new MemorySource({ name: 'discs', size, channels, classes: ['red', 'green', 'blue', 'grey'] }, pixels, labels, (i) => `disc ${i}`);
}

/** Pictures for people: PNG files, grids of samples, pairs of picture and reconstruction, the contact sheet of a data set. */
import { disk } from '../io/disk.js';
import type { Text } from './lettering.js';
import { fitText, lettering, textWidth } from './lettering.js';
import type { Pixels } from './resample.js';
import type { DataSet, ImageSource } from './source.js';
import { pictureBytes, stack } from './source.js';
import { summarize } from './summary.js';

/** A finished picture, grey (1 channel) or RGB (3). */
export interface Picture extends Pixels {
  readonly pixels: Uint8Array<ArrayBuffer>;
  readonly channels: 1 | 3;
}

/** Encodes height * width * channels bytes as PNG. @throws RangeError if the number of bytes is another */
export async function encodePng(pixels: Uint8Array, width: number, height: number, channels: 1 | 3): Promise<Buffer> {
  if (pixels.length !== width * height * channels)
    throw new RangeError(`encodePng: ${width} x ${height} x ${channels} needs ${width * height * channels} bytes, got ${pixels.length}`);
  const { default: sharp } = await import('sharp');
  const image = sharp(pixels, { raw: { width, height, channels } });
  return (channels === 1 ? image.toColourspace('b-w') : image).png({ compressionLevel: 9 }).toBuffer();
}

/** Writes a picture as PNG: the old file or the new one, never half of one. @throws DiskError */
export async function writePng(path: string, { pixels, width, height, channels }: Picture): Promise<void> {
  disk.writeFileAtomic(path, await encodePng(pixels, width, height, channels));
}

export interface GridOptions {
  /** Pixels between pictures, 2 by default. */
  readonly gap?: number;
  /** Each pixel becomes scale x scale, 1 by default. */
  readonly scale?: number;
  /** Brightness of the gaps and of empty places, 255 by default. */
  readonly background?: number;
}

/**
 * Pictures side by side, row by row.
 * @param images count * size * size * channels bytes, one picture after another
 */
export function grid(
  images: Uint8Array,
  count: number,
  size: number,
  channels: 1 | 3,
  columns: number,
  options: GridOptions = {},
): Picture {
  if (images.length !== count * size * size * channels)
    throw new RangeError(
      `grid: ${count} pictures of ${size} x ${size} x ${channels} need ${count * size * size * channels} bytes, got ${images.length}`,
    );
  const { gap = 2, scale = 1, background = 255 } = options;
  const across = Math.max(1, Math.min(columns, count));
  const rows = Math.max(1, Math.ceil(count / across));
  const cell = size * scale;
  const sheet = blank(across * cell + (across - 1) * gap, rows * cell + (rows - 1) * gap, channels, background);
  for (let i = 0; i < count; i++) paste(sheet, images, i, size, scale, (i % across) * (cell + gap), Math.floor(i / across) * (cell + gap));
  return sheet;
}

/**
 * Pairs: each original with its reconstruction directly below, a gap between pairs.
 * @param originals count * size * size * channels bytes; `reconstructions` likewise
 */
export function pairGrid(
  originals: Uint8Array,
  reconstructions: Uint8Array,
  count: number,
  size: number,
  channels: 1 | 3,
  columns: number,
  options: GridOptions = {},
): Picture {
  const each = size * size * channels;
  if (originals.length !== count * each || reconstructions.length !== count * each)
    throw new RangeError(`pairGrid: ${count} pictures need ${count * each} bytes, got ${originals.length} and ${reconstructions.length}`);
  const { gap = 4, scale = 1, background = 255 } = options;
  const across = Math.max(1, Math.min(columns, count));
  const rows = Math.max(1, Math.ceil(count / across));
  const cell = size * scale;
  const sheet = blank(across * cell + (across - 1) * gap, rows * 2 * cell + (rows - 1) * gap, channels, background);
  for (let i = 0; i < count; i++) {
    const left = (i % across) * (cell + gap);
    const top = Math.floor(i / across) * (2 * cell + gap);
    paste(sheet, originals, i, size, scale, left, top);
    paste(sheet, reconstructions, i, size, scale, left, top + cell);
  }
  return sheet;
}

export interface ContactSheetOptions {
  /** Examples a class; 12 by default, fewer of large pictures. */
  readonly examples?: number;
  /** Examples a class of the held-out part, behind the others; 3 by default, fewer of large pictures. */
  readonly heldOutExamples?: number;
  /** Rows at most, 40 by default; the sheet says how many classes are left out. */
  readonly rows?: number;
  /** Above the sheet. */
  readonly title?: string;
}

const MARGIN = 20;
const LABEL_WIDTH = 190;
const CELL_GAP = 4;
const PART_GAP = 24;
const DARK = '#1c2530';
const LIGHT = '#6b7785';

/** A row for each class: name, counts, examples spread evenly over the class, then held-out ones. Decodes only what it shows. */
export async function contactSheet(data: DataSet, options: ContactSheetOptions = {}): Promise<Picture> {
  const { rows = 40, title = 'Data' } = options;
  const summary = summarize(data);
  const shown = summary.classes.slice(0, rows);
  const more = summary.classes.length - shown.length;
  const scale = Math.max(1, Math.round(64 / summary.size));
  const cell = summary.size * scale;
  const pitch = Math.max(cell, 48) + 12;
  const left = MARGIN + LABEL_WIDTH;
  const train = part(data.train, options.examples ?? columnsIn(900, cell, 12), rows, left);
  const middle = left + train.columns * (cell + CELL_GAP) + PART_GAP;
  const heldOut = part(data.heldOut, options.heldOutExamples ?? columnsIn(300, cell, 3), rows, middle);
  const facts = `${thousands(summary.train)} training + ${thousands(summary.heldOut)} held out · ${summary.classes.length} classes · ${summary.size} x ${summary.size} x ${summary.channels}`;
  const width = MARGIN + Math.max(middle + heldOut.columns * (cell + CELL_GAP) - CELL_GAP, Math.ceil(MARGIN + textWidth(facts, 10)));
  const top = MARGIN + 78;
  const height = top + shown.length * pitch + (more > 0 ? 28 : 0) + MARGIN - 12;

  const sheet = blank(width, height, 3, 255);
  const texts: Text[] = [
    { text: fitText(title, 15, width - 2 * MARGIN), x: MARGIN, y: MARGIN + 15, height: 15, colour: DARK },
    { text: facts, x: MARGIN, y: MARGIN + 38, height: 10, colour: LIGHT },
    { text: 'training', x: left, y: top - 10, height: 9, colour: LIGHT },
    { text: 'held out', x: middle, y: top - 10, height: 9, colour: LIGHT },
  ];
  for (const [label, row] of shown.entries()) {
    const y = top + label * pitch;
    const centre = y + cell / 2;
    texts.push({ text: fitText(row.name, 11, LABEL_WIDTH - 16), x: MARGIN, y: centre - 3, height: 11, colour: DARK });
    texts.push({ text: `${thousands(row.train)} + ${thousands(row.heldOut)}`, x: MARGIN, y: centre + 16, height: 9, colour: LIGHT });
    for (const { source, members, columns, x } of [train, heldOut]) {
      const indices = spread(members[label]!, columns);
      const pixels = await stack(source, indices);
      const colour = source.channels === 3 ? pixels : repeatChannels(pixels);
      for (let i = 0; i < indices.length; i++) paste(sheet, colour, i, source.size, scale, x + i * (cell + CELL_GAP), y);
    }
  }
  if (more > 0) texts.push({ text: `and ${thousands(more)} more classes`, x: MARGIN, y: height - MARGIN, height: 10, colour: LIGHT });
  return overlay(sheet, lettering(width, height, texts));
}

/** Columns of cells that fit into a width, from 1 to `most`. */
function columnsIn(width: number, cell: number, most: number): number {
  return Math.max(1, Math.min(most, Math.floor(width / (cell + CELL_GAP))));
}

/** One part of a data set on the sheet: picture numbers by class, and as many columns as the largest shown class fills. */
function part(source: ImageSource, most: number, rows: number, x: number) {
  const members: number[][] = source.classes.map(() => []);
  for (let i = 0; i < source.length; i++) members[source.label(i)]!.push(i);
  const largest = members.slice(0, rows).reduce((n, all) => Math.max(n, all.length), 1);
  return { source, members, x, columns: Math.min(most, largest) };
}

/** Up to `most` of the numbers, evenly spread from the first to the last. */
function spread(all: readonly number[], most: number): number[] {
  if (all.length <= most) return [...all];
  return Array.from({ length: most }, (_, k) => all[Math.round((k * (all.length - 1)) / Math.max(1, most - 1))]!);
}

async function overlay(sheet: Picture, svg: Buffer): Promise<Picture> {
  const { default: sharp } = await import('sharp');
  const { pixels, width, height } = sheet;
  const out = await sharp(pixels, { raw: { width, height, channels: 3 } })
    .composite([{ input: svg }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { ...sheet, pixels: new Uint8Array(out) };
}

function blank(width: number, height: number, channels: 1 | 3, brightness: number): Picture {
  return { pixels: new Uint8Array(width * height * channels).fill(brightness), width, height, channels };
}

/** Puts picture i of `images` on a sheet of as many channels, each pixel as a square of scale x scale. */
function paste(sheet: Picture, images: Uint8Array, i: number, size: number, scale: number, left: number, top: number): void {
  const { channels } = sheet;
  const first = i * pictureBytes({ size, channels });
  for (let y = 0; y < size * scale; y++) {
    for (let x = 0; x < size * scale; x++) {
      const from = first + (Math.floor(y / scale) * size + Math.floor(x / scale)) * channels;
      const to = ((top + y) * sheet.width + left + x) * channels;
      for (let c = 0; c < channels; c++) sheet.pixels[to + c] = images[from + c]!;
    }
  }
}

/** Grey to RGB. */
function repeatChannels(grey: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(grey.length * 3);
  for (let i = 0; i < grey.length; i++) out.fill(grey[i]!, i * 3, i * 3 + 3);
  return out;
}

function thousands(n: number): string {
  return n.toLocaleString('en-GB');
}

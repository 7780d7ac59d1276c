/**
 * OpenMoji: 1,914 coloured line drawings in nine groups, a small real data set that comes by npm. Skin tones, and the groups of extras and
 * components, are left out: near copies and non-pictures.
 */
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { FailureError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import type { DecodeJob } from './job.js';
import { DEFAULT_WORKERS, DecodePool } from './pool.js';
import type { DataSet } from './source.js';
import { MemorySource, pictureBytes } from './source.js';

/** One drawing of the package's list. */
interface Drawing {
  readonly code: string;
  readonly group: string;
  readonly subgroup: string;
  readonly annotation: string;
}

export interface OpenmojiOptions {
  /** Pixels a side, 8 to 512. */
  readonly size: number;
  readonly channels: 1 | 3;
  readonly workers?: number;
  /** Called as drawings become pictures. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** The most of a group's drawings that may be held out. */
const HELD_OUT_SHARE = 0.08;

/**
 * Rasterises all drawings (two seconds on two cores at 32 px) and keeps them in memory. Classes are the groups, in the package's order.
 * @throws FailureError if the package is absent or damaged
 */
export async function openOpenmoji({ size, channels, workers = DEFAULT_WORKERS, onProgress }: OpenmojiOptions): Promise<DataSet> {
  const folder = packageFolder();
  const drawings = listDrawings(join(folder, 'data', 'openmoji.json'));
  const classes = [...new Set(drawings.map((drawing) => drawing.group))];
  const path = (drawing: Drawing): string => join(folder, 'color', 'svg', `${drawing.code}.svg`);
  const each = pictureBytes({ size, channels });

  const pixels = await rasterise(
    drawings.map((drawing) => ({ kind: 'drawing', path: path(drawing), size, channels })),
    workers,
    onProgress,
  );
  const held = heldOutSubgroups(drawings);
  const part = (name: string, wanted: boolean): MemorySource => {
    const indices = drawings.flatMap((drawing, i) => (held.has(subgroupName(drawing)) === wanted ? [i] : []));
    const own = new Uint8Array(indices.length * each);
    indices.forEach((index, i) => {
      own.set(pixels[index]!, i * each);
    });
    const labels = indices.map((index) => classes.indexOf(drawings[index]!.group));
    const about = { name: `openmoji, ${name}`, size, channels, classes };
    return new MemorySource(about, own, labels, (i) => {
      const drawing = drawings[indices[i]!]!;
      return `${path(drawing)} (${drawing.annotation})`;
    });
  };
  return {
    train: part('training part', false),
    heldOut: part('held-out part', true),
    credit: 'Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0',
  };
}

/**
 * Subgroups ('group/subgroup') kept for evaluation. Drawings of one subgroup look alike (31 clocks, 259 national flags), so a subgroup
 * stays whole on one side of the split. In each group, subgroups are taken in the order of their names' SHA-256, which favours none, as long
 * as at most 8 % of the group's drawings are held out.
 */
export function heldOutSubgroups(drawings: readonly Pick<Drawing, 'group' | 'subgroup'>[]): Set<string> {
  const held = new Set<string>();
  for (const group of new Set(drawings.map((drawing) => drawing.group))) {
    const counts = new Map<string, number>();
    for (const drawing of drawings) {
      if (drawing.group === group) counts.set(subgroupName(drawing), (counts.get(subgroupName(drawing)) ?? 0) + 1);
    }
    let room = HELD_OUT_SHARE * [...counts.values()].reduce((a, b) => a + b, 0);
    const order = [...counts.keys()].map((name) => ({ name, hash: createHash('sha256').update(name).digest('hex') }));
    order.sort((a, b) => (a.hash < b.hash ? -1 : 1));
    for (const { name } of order) {
      const count = counts.get(name)!;
      if (count > room) continue;
      room -= count;
      held.add(name);
    }
  }
  return held;
}

function subgroupName(drawing: Pick<Drawing, 'group' | 'subgroup'>): string {
  return `${drawing.group}/${drawing.subgroup}`;
}

async function rasterise(
  jobs: readonly DecodeJob[],
  workers: number,
  onProgress: ((done: number, total: number) => void) | undefined,
): Promise<Uint8Array[]> {
  const pool = new DecodePool(workers);
  let done = 0;
  try {
    return await Promise.all(
      jobs.map(async (job) => {
        const pixels = await pool.run(job);
        onProgress?.(++done, jobs.length);
        return pixels;
      }),
    );
  } finally {
    await pool.close();
  }
}

function packageFolder(): string {
  try {
    return dirname(createRequire(import.meta.url).resolve('openmoji/package.json'));
  } catch (cause) {
    throw new FailureError(
      'data set openmoji: the npm package "openmoji" is not installed. Run `npm install` in the folder of this project',
      { cause },
    );
  }
}

/** Reads the package's list, trusting none of it: a damaged install should say so. */
function listDrawings(path: string): Drawing[] {
  const text = new TextDecoder().decode(disk.readFile(path, 2 ** 26));
  let entries: unknown;
  try {
    entries = JSON.parse(text);
  } catch (cause) {
    throw new FailureError(`data set openmoji: ${path} is not JSON. Install the package again: npm install`, { cause });
  }
  const drawings = Array.isArray(entries) ? entries.map(toDrawing).filter((drawing) => drawing !== undefined) : [];
  if (drawings.length === 0) throw new FailureError(`data set openmoji: ${path} lists no drawings. Install the package again: npm install`);
  return drawings;
}

/** The drawing of a list entry; undefined for those that are left out. */
function toDrawing(entry: unknown): Drawing | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined;
  const { hexcode, group, subgroups, annotation, skintone } = entry as Record<string, unknown>;
  if (typeof hexcode !== 'string' || typeof group !== 'string' || typeof subgroups !== 'string') return undefined;
  if (skintone !== '' || group.startsWith('extras') || group === 'component') return undefined;
  return { code: hexcode, group, subgroup: subgroups, annotation: typeof annotation === 'string' ? annotation : hexcode };
}

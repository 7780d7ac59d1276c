/**
 * What a run is made from and its checkpoints do not hold, in a few digits each, so that a resumed run cannot be given something else in silence:
 * which pictures, in which order, of which class; and the weights of the perceptual network. What is inside the pictures is not looked at.
 */
import { createHash } from 'node:crypto';
import type { DataSet } from '../data/source.js';
import { type Disk, piecesOf, disk as realDisk } from '../io/disk.js';
import type { CheckpointState } from './checkpoints.js';
import type { RunConfig } from './config.js';

export type Origin = NonNullable<CheckpointState['origin']>;

/** @throws DiskError when the perceptual weights cannot be read */
export function originOf(config: RunConfig, data: DataSet, disk: Disk = realDisk): Origin {
  const { perceptual } = config.objective;
  return { pictures: hashNames(data), ...(perceptual ? { perceptual: hashFile(perceptual, disk) } : {}) };
}

/** Without the folders above, so that a set may be moved, or packed. */
function hashNames(data: DataSet): string {
  const hash = createHash('sha256');
  for (const part of [data.train, data.heldOut]) {
    hash.update(`${part.length}\n`);
    for (let i = 0; i < part.length; i++) hash.update(`${part.label(i)} ${part.path(i).split('/').at(-1)?.replace(/\.gz$/, '')}\n`);
  }
  return hash.digest('hex');
}

function hashFile(path: string, disk: Disk): string {
  const hash = createHash('sha256');
  const file = disk.open(path);
  try {
    for (const piece of piecesOf(file, file.size)) hash.update(piece);
  } finally {
    file.close();
  }
  return hash.digest('hex');
}

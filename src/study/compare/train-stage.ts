/** Trains one stage as an ordinary run in a folder of its own, and goes on with it where it was interrupted. */
import { join } from 'node:path';
import { UsageError } from '../../core/errors.js';
import type { DataSet } from '../../data/source.js';
import { measureReconstruction } from '../../eval/reconstruction.js';
import { disk } from '../../io/disk.js';
import { Checkpoints } from '../../train/checkpoints.js';
import { modelConfig, type RunConfig } from '../../train/config.js';
import type { LogLine } from '../../train/metrics.js';
import { findResume, type Resume } from '../../train/resume.js';
import { train } from '../../train/train.js';
import { readWeights, WEIGHTS_FILE } from '../../train/weights.js';
import { scaleLatent } from '../scale.js';
import { difference } from '../store.js';
import type { Workplace } from '../study.js';

export interface StageOptions extends Pick<Workplace, 'device' | 'compute' | 'signal'> {
  readonly data: DataSet;
  /** Deviation that an untrained latent without a norm is brought to; 0: left as it is. */
  readonly scale: number;
  readonly onLine: (line: LogLine) => void;
}

/** Pictures by which the untrained latent is measured. */
const MEASURED = 256;

/**
 * Sees to it that a run of this configuration stands in the folder, trained to its end; where it does already, nothing is computed.
 * @throws DivergedError where values stop being finite; UsageError where the folder holds a run of other settings; and as train
 */
export async function trainStage(folder: string, config: RunConfig, options: StageOptions): Promise<void> {
  const { data, device, compute, signal, scale, onLine } = options;
  const checkpoints = join(folder, 'checkpoints');
  if (!isFinished(folder, config)) {
    const resume = standing(folder, config);
    // Nothing in it can be gone on with, and all of it is ours.
    if (!resume && disk.exists(folder)) disk.remove(folder);
    await train(config, {
      ...{ out: folder, device, compute, signal, data },
      ...(resume ? { resume } : {}),
      report: (event) => {
        if (event.kind === 'train') onLine(event);
      },
      prepare: async (stepper) => {
        if (config.model.latentNorm || scale === 0 || config.objective.targetEncoder === 'frozen') return;
        const { rawLatent } = await measureReconstruction(stepper.online, data.heldOut, {
          ...{ device, dtype: compute, batch: 128, count: MEASURED },
        });
        scaleLatent(stepper, scale / rawLatent.deviation);
      },
    });
  }
  if (disk.exists(checkpoints)) disk.remove(checkpoints); // several times its weights, and of no use any more
}

/** Pictures per second vary, so the time of each line's share. Of a run that was interrupted all parts count, and no pause. */
export function trainedIn(folder: string): { readonly seconds: number; readonly skipped: number } {
  const path = join(folder, 'metrics.jsonl');
  if (!disk.exists(path)) return { seconds: 0, skipped: 0 };
  let [seconds, before, skipped] = [0, 0, 0];
  for (const text of new TextDecoder().decode(disk.readFile(path)).split('\n')) {
    if (text === '') continue;
    const line = JSON.parse(text) as Partial<LogLine>;
    if (line.kind !== 'train' || line.images === undefined) continue;
    seconds += (line.images - before) / (line.imagesPerSecond ?? Number.POSITIVE_INFINITY);
    before = line.images;
    skipped = line.skipped ?? skipped;
  }
  return { seconds, skipped };
}

/** Whether the folder's weights are those of the whole run. @throws UsageError for those of other settings */
function isFinished(folder: string, config: RunConfig): boolean {
  if (!disk.exists(join(folder, WEIGHTS_FILE))) return false;
  const { info } = readWeights(folder);
  checkSame(folder, info.config, config);
  return info.images >= config.train.images;
}

/** The checkpoint to go on from; undefined where there is none. @throws UsageError for one of other settings; FailureError where none is whole */
function standing(folder: string, config: RunConfig): Resume | undefined {
  if (!disk.exists(folder) || new Checkpoints(folder).list().length === 0) return undefined;
  const resume = findResume(folder);
  checkSame(folder, resume.state.config, config);
  return resume;
}

/** The study may have been moved, and with it the weights of the stage before. */
const moved = ({ objective: { frozen: _, ...objective }, ...config }: RunConfig): object => ({ ...config, objective });

function checkSame(folder: string, found: RunConfig, wanted: RunConfig): void {
  const other = difference(moved(found), moved(wanted));
  if (other !== undefined)
    throw new UsageError(
      `the run '${folder}' is of other settings: ${other}. Choose another --out, or remove that folder to have it trained again`,
    );
}

/** The shapes of a stage's network on these pictures. */
export const shapesOf = (config: RunConfig, { train: { channels, classes } }: DataSet) =>
  modelConfig(config, { channels, classes: classes.length });

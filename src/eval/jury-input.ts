/** What a jury is asked for, and what can be told of it at once. */
import { UsageError } from '../core/errors.js';
import type { DataSet } from '../data/source.js';
import type { Device } from '../torch/index.js';
import type { ClassifierOptions } from './classifier.js';
import type { ExtractorName } from './extractors.js';
import { NEIGHBOURS } from './reference.js';

export const FEATURES_NAMES = ['classifier', 'nsfwjs-mixed7', 'inception-2015'] as const satisfies readonly (
  | ExtractorName
  | 'classifier'
)[];
export type FeaturesName = (typeof FEATURES_NAMES)[number];
/** Which real pictures are the reference. */
export const AGAINST = ['held-out', 'train', 'all'] as const;
export type Against = (typeof AGAINST)[number];

export type ClassifierSettings = Pick<ClassifierOptions, 'steps' | 'batch' | 'learningRate' | 'weightDecay'>;

/** What takes time. */
export type Stage = 'classifier' | 'training' | 'reference' | 'floor' | 'reconstruction' | 'components' | 'samples';

export interface JuryInput {
  /** Each once. */
  readonly features: readonly FeaturesName[];
  /** Weights of the 2015 Inception, where they are not where DSD_INCEPTION says. */
  readonly inception?: string | undefined;
  /** Of the samples' size. Without it the reference must come from files, and there is no floor. */
  readonly data?: Pick<DataSet, 'train' | 'heldOut'> | undefined;
  readonly against: Against;
  /** The most real pictures in the reference; fewer where there are fewer. */
  readonly real: number;
  /** `.npz` files to take the reference from instead: statistics, or pictures. */
  readonly files: readonly string[];
  /** Pictures in the sets that will be judged: of the floor. */
  readonly count: number;
  /** Describes so many training pictures at most, for `training`. */
  readonly searched?: number | undefined;
  readonly device: Device;
  readonly seed: number;
  readonly classifier?: ClassifierSettings | undefined;
  /** Where the classifier is kept from one jury to the next: read if it is there, else written. */
  readonly classifierFile?: string | undefined;
  readonly progress?: ((stage: Stage, done: number, total: number) => void) | undefined;
}

/** What would be found out only after minutes of work. @throws UsageError */
export function checkJury({ features, data, files, real, count, against }: JuryInput): void {
  if (features.length === 0) throw new UsageError(`pictures are judged by the features of a network: ${FEATURES_NAMES.join(', ')}`);
  if (!data && files.length === 0) throw new UsageError('samples are compared with real pictures: name some with --data or --reference');
  if (features.includes('classifier')) {
    if (!data) throw new UsageError('a classifier is trained on the data that samples are compared with: name it with --data');
    const { classes, name } = data.train;
    if (classes.length < 2) throw new UsageError(`a classifier needs at least two classes, and ${name} has ${classes.length}`);
  }
  for (const part of data ? [data.train, data.heldOut] : [])
    if (part.length <= NEIGHBOURS)
      throw new UsageError(
        `evaluation needs more than ${NEIGHBOURS} pictures in each part, and ${part.name} has ${part.length}: 'dsd reconstruct' needs one`,
      );
  for (const [what, number] of [
    ['samples', count],
    ['real pictures', real],
  ] as const)
    if (!Number.isInteger(number) || number <= NEIGHBOURS)
      throw new UsageError(`evaluation needs more than ${NEIGHBOURS} ${what}, got ${number}`);
  if (files.length > 0 && against !== 'held-out') throw new UsageError('the reference is a file, or a part of the data, not both');
}

/** What `dsd eval` was given: what kind of thing it is to measure, by which networks, and against which files. */
import { extname } from 'node:path';
import { nearest, UsageError } from '../core/errors.js';
import { looksLikePicture } from '../data/folder.js';
import { FEATURES_NAMES, type FeaturesName } from '../eval/jury-input.js';
import { contentOf } from '../eval/reference-file.js';
import { openSamples } from '../eval/references.js';
import { disk } from '../io/disk.js';
import { WEIGHTS_FILE } from '../train/weights.js';

/** A run's folder and a weights file are a model; other folders, and `.npz` files, are pictures. @throws UsageError for what is not there, and for one picture */
export function subjectOf(path: string): 'model' | 'folder' | 'npz' {
  if (!disk.exists(path)) throw new UsageError(`there is no file or run folder '${path}'`);
  if (disk.stat(path).kind !== 'folder') {
    if (extname(path).toLowerCase() === '.npz') return 'npz';
    if (!looksLikePicture(path)) return 'model';
    throw new UsageError(
      `'${path}' is a picture, and sets of pictures are measured: name a folder of them, an .npz that holds them (arr_0), or a run`,
    );
  }
  return disk.list(path).some((name) => [WEIGHTS_FILE, 'config.json'].includes(name)) ? 'model' : 'folder';
}

/**
 * The networks asked for, or those that can judge here.
 * @param labelled whether a classifier could judge: samples have classes, and there is data to train it on
 * @throws UsageError for a name that is none, or comes twice
 */
export function chooseFeatures(
  flags: { readonly features: string | undefined; readonly inception: string | undefined },
  { labelled, files }: { labelled: boolean; files: readonly { path: string; statistics: string | undefined; pictures: boolean }[] },
): FeaturesName[] {
  if (flags.features !== undefined) return flags.features.split(',').map((name, i, all) => checkName(name, all.indexOf(name) < i));
  const weights = flags.inception ?? process.env.DSD_INCEPTION;
  const possible: FeaturesName[] = [
    ...(labelled ? ['classifier' as const] : []),
    'nsfwjs-mixed7',
    ...(weights ? ['inception-2015' as const] : []),
  ];
  if (files.length === 0 || files.some(({ pictures, statistics }) => pictures && statistics === undefined)) return possible;
  // Statistics judge by the network that they are of.
  const named = files.flatMap(({ statistics }) => FEATURES_NAMES.filter((name) => name === statistics));
  return named.length > 0 ? [...new Set(named)] : possible;
}

/**
 * Refuses flags that would change nothing.
 * @throws UsageError
 */
export function checkHeeded(
  flags: {
    readonly inception: string | undefined;
    readonly 'classifier-steps': number | undefined;
    readonly real: number | undefined;
    readonly against: string | undefined;
    readonly reference: readonly string[];
  },
  features: readonly FeaturesName[],
): void {
  const judges = `those that judge here are ${features.join(', ')}`;
  if (flags.inception !== undefined && !features.includes('inception-2015'))
    throw new UsageError(`--inception names the weights of inception-2015, and ${judges}: add it to --features, or leave --inception out`);
  if (flags['classifier-steps'] !== undefined && !features.includes('classifier'))
    throw new UsageError(`--classifier-steps is for training a classifier, and ${judges}: add it to --features, or leave the flag out`);
  const chosen = (['real', 'against'] as const).find((name) => flags[name] !== undefined);
  if (chosen && flags.reference.length > 0)
    throw new UsageError(
      `--${chosen} chooses pictures of the data as the reference, and here it is all that ${flags.reference.join(' and ')} holds: leave --${chosen} or --reference out`,
    );
}

function checkName(name: string, twice: boolean): FeaturesName {
  const found = FEATURES_NAMES.find((known) => known === name);
  if (twice) throw new UsageError(`--features names ${name} twice`);
  if (found) return found;
  const guess = nearest(name, FEATURES_NAMES);
  throw new UsageError(
    `--features wants some of ${FEATURES_NAMES.join(', ')}; found '${name}'${guess ? `: did you mean '${guess}'?` : ''}`,
  );
}

/** What must be known of files of pictures that have another size than the samples. @throws as openSamples */
export function sizeWarnings(
  files: readonly string[],
  features: readonly FeaturesName[],
  samples: { readonly width: number; readonly height: number },
): string[] {
  return files.flatMap((path) => {
    const { pictures, names, statistics } = contentOf(path);
    const described = names.includes('features') && features.every((name) => name === statistics); // then its pictures are not looked at
    if (!pictures || described) return [];
    const rows = openSamples(path);
    const [, height, width] = rows.shape;
    rows.close();
    if (height === samples.height && width === samples.width) return [];
    return `${path} has pictures of ${width} x ${height} px, and the samples have ${samples.width} x ${samples.height} px: distances are of size and sharpness too`;
  });
}

/** Files of the references, by network: the one named, or for several networks one each, NAME.nsfwjs-mixed7.npz. @throws UsageError */
export function referenceFiles(path: string, features: readonly FeaturesName[]): Map<FeaturesName, string> {
  if (extname(path).toLowerCase() !== '.npz') throw new UsageError(`--write-reference wants FILE.npz, found '${path}'`);
  const lasting = features.filter((name) => name !== 'classifier');
  if (lasting.length === 0)
    throw new UsageError(
      '--write-reference wants a network whose features stay the same: a classifier is trained anew each time. Add --features nsfwjs-mixed7',
    );
  return byNetwork(path, lasting);
}

/** A file for each network: the one named, or of several NAME.nsfwjs-mixed7.EXT and so on. */
export function byNetwork(path: string, features: readonly FeaturesName[]): Map<FeaturesName, string> {
  const extension = extname(path);
  const stem = path.slice(0, path.length - extension.length);
  return new Map(features.map((name) => [name, features.length === 1 ? path : `${stem}.${name}${extension}`]));
}

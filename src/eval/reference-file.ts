/** The reference that files give for a network: its statistics, or pictures from which they can be taken. */
import { UsageError } from '../core/errors.js';
import { npzNames, readNpz } from '../io/npz.js';
import type { Extractor } from './features.js';
import { type ReferenceStatistics, readReference } from './references.js';
import { ofNpz, type PictureSet } from './sets.js';

export interface FileReference {
  readonly path: string;
  /** Undefined where the file has pictures only. */
  readonly statistics: ReferenceStatistics | undefined;
  /** Opens the pictures that have to be described; undefined where there are none, or their features are in the file. */
  pictures(): PictureSet | undefined;
  readonly warnings: readonly string[];
}

/** Places of the 2015 network's spatial features: 17 x 17 of 7 channels. */
const SPATIAL = 17 * 17 * 7;

/**
 * Finds the file for a network: one of its statistics, else one of pictures.
 * @throws UsageError for files of other networks, or with neither statistics nor pictures; and as readReference, ofNpz
 */
export function openFileReference(files: readonly string[], { name, dimension }: Pick<Extractor, 'name' | 'dimension'>): FileReference {
  const found = files.map((path) => ({ path, ...contentOf(path) }));
  const own = found.find(({ statistics }) => statistics === name);
  if (own) {
    const statistics = readReference(own.path, {
      extractor: name,
      dimension,
      ...(name === 'inception-2015' ? { spatialDimension: SPATIAL } : {}),
    });
    const described = statistics.samples && !statistics.features;
    return { path: own.path, statistics, warnings: statistics.warnings, pictures: () => (described ? ofNpz(own.path) : undefined) };
  }
  const pictures = found.find((file) => file.pictures);
  if (pictures) {
    ofNpz(pictures.path).close(); // what is wrong with it is said before the work
    return { path: pictures.path, statistics: undefined, warnings: [], pictures: () => ofNpz(pictures.path) };
  }
  const told = found.map(
    ({ path, statistics, names }) =>
      `${path} has ${statistics ? `statistics of '${statistics}'` : `only ${names.map((each) => `'${each}'`).join(', ') || 'nothing'}`}`,
  );
  throw new UsageError(
    `no reference for '${name}': ${told.join('; ')}. Statistics are 'mu' and 'sigma' of the same network's features, pictures 'arr_0'`,
  );
}

/** Whose statistics a file has, and whether it has pictures. Files that name no network are of the 2015 Inception, by custom. */
export function contentOf(path: string): { readonly statistics: string | undefined; readonly pictures: boolean; readonly names: string[] } {
  const names = npzNames(path);
  const extractor = names.includes('extractor') ? readNpz(path, ['extractor']).get('extractor')?.data : undefined;
  const named = extractor instanceof Uint8Array ? new TextDecoder().decode(extractor) : 'inception-2015';
  return { statistics: names.includes('mu') || names.includes('sigma') ? named : undefined, pictures: names.includes('arr_0'), names };
}

/**
 * Those who judge sets of pictures: feature networks, each with the real pictures as it sees them. Real pictures are described once, whatever
 * the number of sets.
 */
import { scope, type Tensor } from '../torch/index.js';
import { Classifier, FEATURES } from './classifier.js';
import { type Description, describe, disposeAll, rowsOf, stacked } from './describe.js';
import { type ExtractorName, ofClassifier, openExtractor } from './extractors.js';
import type { Extractor } from './features.js';
import { FrechetReference } from './frechet.js';
import { checkJury, type JuryInput, type Stage } from './jury-input.js';
import { statistics } from './moments.js';
import { spread } from './pictures.js';
import { type Distances, NEIGHBOURS, Reference } from './reference.js';
import { type FileReference, openFileReference } from './reference-file.js';
import { inChannels, ofSource, type PictureSet } from './sets.js';

/** More pictures than this share of a part in a reference: it was taken from that part. Fewer are pictures that both parts of a set have. */
const SHARED = 0.02;

/** What fixes one network's figures. */
export interface JudgeProtocol {
  readonly extractor: string;
  readonly distance: string;
  readonly dimension: number;
  readonly source: string;
  /** Where the reference is from. A count of null: the file does not say. */
  readonly reference: { readonly source: string; readonly count: number | null };
  readonly floor?: { readonly source: string; readonly count: number };
}

/** One network, its reference, and what real pictures score against it. */
export interface Judge {
  readonly extractor: Extractor;
  readonly reference: Reference;
  readonly floor: Distances | undefined;
  readonly protocol: JudgeProtocol;
}

/** What the judges say of a set. */
export interface Scores {
  readonly count: number;
  /** By network, in the order asked for. */
  readonly distances: readonly Distances[];
  /** Share that the classifier puts in the class that was asked for, where there are both. Not to be read alone: class means score 1. */
  readonly accuracy?: number;
}

/** Real pictures as the networks see them, and which they are. */
interface Part {
  readonly name: string;
  readonly indices: readonly number[];
  readonly descriptions: readonly Description[];
}

export class Jury {
  private readonly owned: { dispose(): void }[] = [];
  readonly judges: Judge[] = [];
  readonly warnings: string[] = [];
  /** Share of real held-out pictures that the classifier gets right. */
  realAccuracy: number | undefined;
  /** Held-out pictures that were described: the reference, or else the floor. */
  heldOut: Part | undefined;
  /** Of the reference, where it is of the data. */
  referencePictures: readonly PictureSet[] = [];
  /** The training pictures that were asked to be `searched`. */
  training: Part | undefined;
  private classifier: Classifier | undefined;
  private extractors: Extractor[] = [];
  /** Of parts that reconstructions were compared with: several models may be. */
  private readonly gaussians = new Map<Description, FrechetReference>();

  private constructor(private readonly input: JuryInput) {}

  /**
   * Opens the networks, trains the classifier if it is asked for, and describes the real pictures.
   * @throws UsageError for what does not fit, before the long work where it can be seen then; FailureError, PictureError, NpzError, DiskError
   */
  static async open(input: JuryInput): Promise<Jury> {
    const jury = new Jury(input);
    try {
      checkJury(input);
      await jury.prepare();
      return jury;
    } catch (error) {
      jury.dispose();
      throw error;
    }
  }

  /** Whether such a jury could be opened, as far as it can be told in a moment. @throws UsageError, FailureError as `open` */
  static async check(input: JuryInput): Promise<void> {
    checkJury(input);
    const { device, inception, data, classifierFile, features } = input;
    if (features.includes('classifier') && data && classifierFile !== undefined)
      await Classifier.checkKept(classifierFile, data.train, { ...input.classifier, device, seed: input.seed });
    for (const name of features) if (name !== 'classifier') openExtractor(name, { device, inception }).dispose();
  }

  private own<T extends { dispose(): void }>(thing: T): T {
    this.owned.push(thing);
    return thing;
  }

  private async prepare(): Promise<void> {
    const { features, device, inception, data, seed, files, progress } = this.input;
    const networks = new Map(
      features.flatMap((name) => (name === 'classifier' ? [] : [[name, this.own(openExtractor(name, { device, inception }))] as const])),
    );
    const ours = { name: 'a classifier that is trained here', dimension: FEATURES }; // no file has statistics of it
    const found = files.length === 0 ? [] : features.map((name) => openFileReference(files, networks.get(name as ExtractorName) ?? ours));
    for (const file of found) await this.checkColours(file);
    if (features.includes('classifier') && data) {
      const told = (step: number, steps: number) => progress?.('classifier', step, steps);
      const { classifier, classifierFile } = this.input;
      const options = { ...classifier, device, seed, progress: told };
      this.classifier = this.own(
        classifierFile === undefined
          ? await Classifier.train(data.train, options)
          : await Classifier.kept(classifierFile, data.train, options),
      );
    }
    this.extractors = features.map((name) => networks.get(name as ExtractorName) ?? ofClassifier(this.classifier as Classifier));
    await this.describeTraining();
    if (files.length > 0) await this.judgeByFiles(found);
    else await this.judgeByPictures();
    const { heldOut, classifier } = this;
    if (classifier && heldOut && data) {
      const own = heldOut.descriptions[features.indexOf('classifier')] as Description;
      this.realAccuracy = share(
        classifier,
        own.pooled,
        heldOut.indices.map((i) => data.heldOut.label(i)),
      );
    }
  }

  /** A file's pictures in the channels of the data; undefined where there are none to describe. */
  private picturesOf(file: FileReference): PictureSet | undefined {
    const { data } = this.input;
    const set = file.pictures();
    return set && data ? inChannels(set, data.train.channels) : set;
  }

  /** Colours in a file that is compared with grey pictures are told before the long work. @throws UsageError */
  private async checkColours(file: FileReference): Promise<void> {
    const set = this.picturesOf(file);
    try {
      await set?.read(0, 1);
    } finally {
      set?.close();
    }
  }

  private async describeTraining(): Promise<void> {
    const { data, searched } = this.input;
    if (!data || searched === undefined) return;
    this.training = await this.part('train', Math.min(searched, data.train.length), 'training');
  }

  /** Pictures evenly spread over a part of the data, described; those of `training` are not described again. */
  private async part(of: 'train' | 'heldOut', count: number, stage: Stage): Promise<Part> {
    const { data, device, progress } = this.input;
    const source = (data as NonNullable<typeof data>)[of];
    const indices = spread(source.length, count);
    const known = of === 'train' && this.training?.indices.length === source.length ? this.training.descriptions : undefined;
    const descriptions = known
      ? known.map((description) => rowsOf(description, indices))
      : await describe(ofSource(source, indices), this.extractors, { device, progress: (done, total) => progress?.(stage, done, total) });
    this.own({ dispose: () => disposeAll(descriptions) });
    return { name: source.name, indices, descriptions };
  }

  private async judgeByPictures(): Promise<void> {
    const { against, real, count, seed, data } = this.input;
    const { train, heldOut } = data as NonNullable<typeof data>;
    const held = async (most: number, stage: Stage) => {
      this.heldOut = await this.part('heldOut', Math.min(most, heldOut.length), stage);
      return this.heldOut;
    };
    const seen = async (most: number, stage: Stage) => this.part('train', Math.min(most, train.length), stage);
    if (against !== 'all') {
      const reference = against === 'held-out' ? await held(real, 'reference') : await seen(real, 'reference');
      this.referencePictures = [ofSource(against === 'held-out' ? heldOut : train, reference.indices)];
      const other = against === 'held-out' ? await seen(count, 'floor') : await held(count, 'floor');
      for (const [i, extractor] of this.extractors.entries()) {
        const own = this.own(Reference.ofPictures(extractor, reference.descriptions[i] as Description, { seed }));
        this.judge(extractor, own, reference, { part: other, distances: own.measure(other.descriptions[i] as Description) });
      }
      return;
    }
    // All real pictures are the reference, so the floor is one part of them against the other: held-out pictures, at the samples' count, against the training part's.
    const share = Math.min(1, real / (train.length + heldOut.length));
    const most = (length: number): number => Math.max(NEIGHBOURS + 1, Math.floor(length * share));
    const [first, second] = [await seen(most(train.length), 'reference'), await held(most(heldOut.length), 'reference')];
    this.referencePictures = [ofSource(train, first.indices), ofSource(heldOut, second.indices)];
    const whole = { name: `${first.name}; ${second.name}`, indices: [...first.indices, ...second.indices] };
    const some = spread(second.indices.length, Math.min(count, second.indices.length));
    const part = { name: `${second.name}, against the ${first.indices.length} of ${first.name} alone`, indices: some };
    for (const [i, extractor] of this.extractors.entries()) {
      const [one, other] = [first.descriptions[i] as Description, second.descriptions[i] as Description];
      const [both, few] = [stacked(one, other), rowsOf(other, some)];
      try {
        const own = this.own(Reference.ofPictures(extractor, both, { seed }));
        const alone = Reference.ofPictures(extractor, one, { seed });
        try {
          this.judge(extractor, own, whole, { part, distances: alone.measure(few) });
        } finally {
          alone.dispose();
        }
      } finally {
        disposeAll([both, few]);
      }
    }
  }

  private async judgeByFiles(files: readonly FileReference[]): Promise<void> {
    const { data, count, seed, device, progress } = this.input;
    this.heldOut = data && (await this.part('heldOut', Math.min(count, data.heldOut.length), 'floor'));
    const references: Reference[] = [];
    for (const [i, extractor] of this.extractors.entries()) {
      const file = files[i] as FileReference;
      this.warnings.push(...file.warnings);
      const set = this.picturesOf(file);
      const told = (done: number, total: number) => progress?.('reference', done, total);
      let described: Description[] | undefined;
      try {
        described = set && (await describe(set, [extractor], { device, progress: told }));
        const options = { seed, device };
        references.push(
          this.own(
            file.statistics
              ? Reference.ofFile(extractor, file.statistics, described?.[0], options)
              : Reference.ofPictures(extractor, described?.[0] as Description, options),
          ),
        );
      } finally {
        disposeAll(described ?? []);
        set?.close();
      }
    }
    const floor = await this.outside(references);
    for (const [i, extractor] of this.extractors.entries()) {
      const own = references[i] as Reference;
      const distances = floor && own.measure(floor.descriptions[i] as Description);
      this.judge(extractor, own, { name: (files[i] as FileReference).path }, distances && { part: floor, distances });
    }
  }

  /** Real pictures that are not in the references: held-out ones, or else training ones. Files do not say of which pictures they are, so they are asked for these. */
  private async outside(references: readonly Reference[]): Promise<Part | undefined> {
    const { heldOut } = this;
    const { data, count } = this.input;
    if (!heldOut || !data) return undefined;
    const shares = ({ descriptions }: Part): number[] =>
      references.flatMap((reference, i) => reference.contains(descriptions[i] as Description) ?? []);
    const apart = (each: readonly number[]): boolean => each.every((share) => share <= SHARED);
    const held = shares(heldOut);
    if (held.length === 0)
      this.warn(
        `the reference does not say of which pictures it is: if those of ${heldOut.name} are among them, what real pictures score is too low`,
      );
    if (apart(held)) return heldOut;
    const training = await this.part('train', Math.min(count, data.train.length), 'floor');
    if (apart(shares(training))) return training;
    this.warn(
      `the reference has pictures of ${heldOut.name} and of ${training.name}, so there are none to say what real pictures score against it`,
    );
    return undefined;
  }

  private judge(
    extractor: Extractor,
    reference: Reference,
    from: { readonly name: string },
    floor: { readonly part: Pick<Part, 'name' | 'indices'>; readonly distances: Distances } | undefined,
  ): void {
    const { name, distance, dimension, source } = extractor;
    const count = Number.isFinite(reference.count) ? reference.count : null;
    this.judges.push({
      ...{ extractor, reference, floor: floor?.distances },
      protocol: {
        ...{ extractor: name, distance, dimension, source, reference: { source: from.name, count } },
        ...(floor ? { floor: { source: floor.part.name, count: floor.part.indices.length } } : {}),
      },
    });
  }

  /** Describes a set by every network. The descriptions are the caller's to dispose. */
  async describe(
    set: PictureSet,
    options: { readonly batch?: number; readonly onPictures?: (first: number, pixels: Tensor) => void },
  ): Promise<Description[]> {
    const { device, progress } = this.input;
    return describe(set, this.extractors, { device, ...options, progress: (done, total) => progress?.('samples', done, total) });
  }

  /** What the judges say of a set that they have described. @throws UsageError for too few pictures, FailureError for features that are not finite */
  score(descriptions: readonly Description[], labels: readonly number[] | undefined): Scores {
    const distances = this.judges.map(({ reference }, i) => reference.measure(descriptions[i] as Description));
    const { classifier, input } = this;
    const own = descriptions[input.features.indexOf('classifier')];
    const unknown = classifier && labels?.find((label) => label >= classifier.classes);
    if (classifier && unknown !== undefined)
      this.warn(`pictures have the class ${unknown}, and the data's classes are 0 to ${classifier.classes - 1}: no accuracy is given`);
    const known = unknown === undefined;
    return {
      ...{ count: distances[0]?.count ?? 0, distances },
      ...(classifier && own && labels && known ? { accuracy: share(classifier, own.pooled, labels) } : {}),
    };
  }

  /** Tells a reader of the figures, once. */
  warn(warning: string): void {
    if (!this.warnings.includes(warning)) this.warnings.push(warning);
  }

  /** Frechet distances of descriptions from those of a part, by network. */
  distancesTo(part: Part, descriptions: readonly Description[]): { extractor: string; name: string; frechet: number }[] {
    return this.extractors.map((extractor, i) => ({
      ...{ extractor: extractor.name, name: extractor.distance },
      frechet: this.gaussianOf(part.descriptions[i] as Description).distance(statistics((descriptions[i] as Description).pooled)),
    }));
  }

  private gaussianOf(description: Description): FrechetReference {
    const known = this.gaussians.get(description);
    if (known) return known;
    const made = this.own(new FrechetReference(statistics(description.pooled)));
    this.gaussians.set(description, made);
    return made;
  }

  /** Why distances of sets of `count` pictures would be untrustworthy. */
  warningsFor(count: number): string[] {
    return [...this.warnings, ...this.judges.flatMap(({ reference }) => reference.warning(count) ?? [])];
  }

  get networks(): readonly Extractor[] {
    return this.extractors;
  }

  get classifierProtocol(): Classifier['protocol'] | undefined {
    return this.classifier?.protocol;
  }

  dispose(): void {
    for (const thing of this.owned.splice(0).reverse()) thing.dispose();
  }
}

/** Share of features whose most likely class is the one given. */
function share(classifier: Classifier, pooled: Tensor, labels: readonly number[]): number {
  const found = scope(() => classifier.labelsOf(pooled).toArray());
  return labels.filter((label, i) => Number(found[i]) === label).length / labels.length;
}

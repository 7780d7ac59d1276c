/** `dsd reconstruct`: pictures through encoder and decoder, beside what came out, with PSNR. */
import { basename, join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { UsageError } from '../core/errors.js';
import { type Broken, looksLikePicture } from '../data/folder.js';
import { hasIdxFiles } from '../data/idx.js';
import { DATA_NAMES, openData } from '../data/open.js';
import { pairGrid, writePng } from '../data/picture.js';
import { type ImageSource, MemorySource, stack } from '../data/source.js';
import { fromPixels, toPixels } from '../dsd/generate.js';
import { PsnrMeter, psnr } from '../eval/psnr.js';
import { disk } from '../io/disk.js';
import { noGrad, scope, tensor } from '../torch/index.js';
import type { Loaded } from '../train/weights.js';
import { advised } from './broken.js';
import { defineCommand } from './command.js';
import { ENGINE, type Engine, inBatches, openEngine } from './engine.js';
import { openModel } from './model.js';
import { checkPng, freePath, OVERWRITE, print, printJson, RESULT } from './output.js';
import { openProgress, type Progress } from './progress.js';
import { gridScale } from './sink.js';
import { count, counted, decibels, skipped, table } from './text.js';

/** Pairs in a picture, and files that have a line each. */
const SHOWN = 32;

export const reconstruct = defineCommand({
  name: 'reconstruct',
  about:
    'Encodes and decodes pictures, writes each above its reconstruction, and prints PSNR by the squared error pooled over all of them.',
  operands: { names: 'RUN|WEIGHTS [PICTURE...|DATA]', min: 1, max: Number.POSITIVE_INFINITY },
  flags: {
    count: {
      kind: 'whole',
      value: 'N',
      min: 1,
      about: 'of a data set: how many held-out pictures, evenly spread; by default all. The grid shows up to 32',
    },
    out: { kind: 'text', value: 'FILE.png', about: 'by default reconstructions.png' },
    overwrite: OVERWRITE,
    batch: { kind: 'whole', value: 'N', min: 1, about: 'pictures at a time, 64 by default' },
    ...ENGINE,
    ...RESULT,
  },
  examples: [
    ['dsd reconstruct runs/demo', "the held-out pictures of the run's own data"],
    ['dsd reconstruct runs/demo cat.jpg dog.png', 'pictures of any size, cropped and reduced as in training'],
    ['dsd reconstruct runs/demo ~/pictures --count 1000', 'held-out pictures of other data'],
  ],
  run: async (flags, [path = '', ...pictures]) => {
    const out = flags.out ?? freePath('reconstructions', '.png');
    checkPng(out, flags.overwrite);
    const progress = openProgress(flags);
    const engine = openEngine(flags);
    const loaded = openModel(path, engine.device, ['decode']);
    // Of a data set one can do without a picture; pictures that were named are what is wanted.
    const refuse = (error: unknown): never => {
      throw files ? error : advised(error, pictures[0] ?? loaded.config.data.source);
    };
    const files = pictures.length === 0 ? undefined : pictureFiles(pictures);
    const source = await openSource(loaded, files, pictures[0], progress).catch(refuse);
    if (files && flags.count !== undefined)
      throw new UsageError('--count chooses from a data set, and here pictures are named: leave it out, or name fewer');
    const total = Math.min(flags.count ?? source.length, source.length);
    const indices = Array.from({ length: total }, (_, i) => Math.floor((i * source.length) / total));
    const batch = flags.batch ?? 64;
    const show = (done: number): void => progress.update(`${count(done)}/${count(total)}`, `${Math.floor((100 * done) / total)} %`);
    const result = await inBatches(batch, () => measure(loaded, engine, source, indices, batch, files, show)).catch(refuse);
    const { size, channels } = source;
    await writePng(out, pairGrid(result.originals, result.rebuilt, result.shown, size, channels, 8, { scale: gridScale(size) }));
    progress.clear();
    if (flags.json) {
      printJson({
        out,
        psnr: result.psnr,
        pictures: total,
        source: files ? undefined : source.name,
        each: files?.map((file, i) => ({ path: file, psnr: result.each[i] })),
        compute: engine.compute,
        weights: loaded.kind,
      });
      return;
    }
    if (files && files.length > 1 && files.length <= SHOWN)
      print(
        ...table(
          files.map((file, i) => [file, decibels(result.each[i] ?? Number.NaN)]),
          [1],
        ),
      );
    print(
      `PSNR ${decibels(result.psnr)} over ${files ? counted(total, 'picture') : `${count(total)} of ${source.name}`}`,
      `${out}: ${result.shown < total ? `${result.shown} of them, ` : ''}each above its reconstruction`,
    );
  },
});

interface Measured {
  readonly psnr: number;
  /** Of each picture, where they are files. */
  readonly each: number[];
  readonly shown: number;
  readonly originals: Uint8Array;
  readonly rebuilt: Uint8Array;
}

async function measure(
  { autoencoder }: Loaded,
  { device, compute }: Engine,
  source: ImageSource,
  indices: readonly number[],
  batch: number,
  files: readonly string[] | undefined,
  progress: (done: number) => void,
): Promise<Measured> {
  const { size, channels } = source;
  const each = size * size * channels;
  const shown = Math.min(SHOWN, indices.length);
  // Of many, those shown are spread over all: a data set is often sorted by class.
  const places = new Map(Array.from({ length: shown }, (_, i) => [Math.floor((i * indices.length) / shown), i]));
  const [originals, rebuilt] = [new Uint8Array(shown * each), new Uint8Array(shown * each)];
  const single: number[] = [];
  const pooled = new PsnrMeter();
  for (let first = 0; first < indices.length; first += batch) {
    const pixels = await stack(source, indices.slice(first, first + batch));
    const some = pixels.length / each;
    const output = noGrad(() =>
      scope(() => {
        const x = fromPixels(tensor(pixels, [some, size, size, channels], { dtype: 'uint8', device }));
        const y = autoencoder.in(compute).reconstruct(x);
        pooled.add(x, y);
        if (files) for (let i = 0; i < some; i++) single.push(psnr(x.narrow(0, i, 1), y.narrow(0, i, 1)));
        return toPixels(y).toArray() as Uint8Array;
      }),
    );
    for (let i = 0; i < some; i++) {
      const place = places.get(first + i);
      if (place === undefined) continue;
      originals.set(pixels.subarray(i * each, (i + 1) * each), place * each);
      rebuilt.set(output.subarray(i * each, (i + 1) * each), place * each);
    }
    progress(first + some);
    await turn(); // lets signal handlers run
  }
  return { psnr: pooled.decibels(), each: single, shown, originals, rebuilt };
}

/**
 * The pictures that are meant: none named, the held-out part of the run's data; a data set by name or folder, its held-out part; files, or a
 * folder of loose pictures, just these.
 */
async function openSource(
  { config, model }: Loaded,
  files: readonly string[] | undefined,
  named: string | undefined,
  progress: Progress,
): Promise<ImageSource> {
  const { image: size, channels } = model;
  if (files) return decodeAll(files, size, channels);
  const spec = named ?? config.data.source;
  if (channels === 3 && (spec === 'fashion-mnist' || (disk.exists(spec) && hasIdxFiles(spec))))
    throw new UsageError(`the pictures of ${spec} are grey, and this model was made for colour`);
  progress.update(`opening ${spec}`);
  const onProgress = (done: number, of: number): void => progress.update(`reading pictures: ${count(done)} of ${count(of)}`);
  const onBroken = (broken: Broken): void => progress.note(skipped(broken));
  return (await openData(spec, { size, channels, broken: config.data.broken, onProgress, onBroken })).heldOut;
}

/** Paths of the pictures, or undefined where a data set is meant. @throws UsageError */
function pictureFiles(named: readonly string[]): string[] | undefined {
  const [first = ''] = named;
  const folder = (path: string): boolean => disk.exists(path) && disk.stat(path).kind === 'folder';
  if (named.length > 1 || !(folder(first) || DATA_NAMES.some((name) => name === first))) {
    for (const path of named) {
      if (!disk.exists(path))
        throw new UsageError(`there is no picture, folder or data set '${path}'. Data sets by name: ${DATA_NAMES.join(', ')}`);
      if (folder(path)) throw new UsageError(`'${path}' is a folder: name it alone, or name pictures`);
    }
    return [...named];
  }
  if (!folder(first) || hasIdxFiles(first)) return undefined;
  const names = disk.list(first).filter((name) => !name.startsWith('.'));
  if (names.some((name) => folder(join(first, name)))) return undefined;
  const pictures = names.map((name) => join(first, name)).filter(looksLikePicture);
  if (pictures.length === 0) throw new UsageError(`the folder '${first}' has no pictures (JPEG, PNG, WebP or GIF)`);
  return pictures;
}

async function decodeAll(paths: readonly string[], size: number, channels: 1 | 3): Promise<ImageSource> {
  const { decode } = await import('../data/decode.js');
  const each = size * size * channels;
  const pixels = new Uint8Array(paths.length * each);
  for (const [i, path] of paths.entries()) pixels.set(await decode({ kind: 'photo', path, size, channels }), i * each);
  const about = {
    name: paths.length === 1 ? basename(paths[0] as string) : `${paths.length} pictures`,
    size,
    channels,
    classes: ['picture'],
  };
  return new MemorySource(about, pixels, new Uint8Array(paths.length), (i) => paths[i] as string);
}

/** `dsd bench data`: how fast pictures come when nothing is done with them. */
import { UsageError } from '../../core/errors.js';
import { Loader } from '../../data/loader.js';
import { openData } from '../../data/open.js';
import { DEFAULT_WORKERS } from '../../data/pool.js';
import { print, printJson } from '../output.js';
import { count, counted, figure } from '../text.js';

export interface LoaderFlags {
  readonly data: string | undefined;
  readonly size: number | undefined;
  readonly workers: number | undefined;
  readonly batch: number | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** Measured for so long, and for so many batches at least. */
const MILLISECONDS = 3000;
const LEAST = 3;

export async function benchLoader(flags: LoaderFlags, loadBefore: number): Promise<void> {
  const { data, size = 256, workers = DEFAULT_WORKERS, batch = 128 } = flags;
  if (data === undefined) throw new UsageError('dsd bench data wants to know of what: --data FOLDER');
  // A small set's pictures would be kept, and its second epoch measure nothing but copies.
  const { train } = await openData(data, { size, workers, keep: false });
  const loader = new Loader(train, { batch, seed: 0, flip: true, workers, lend: true });
  try {
    // Processes start, and what is made ahead at the start is had for nothing.
    for (let i = 0; i < LEAST; i++) (await loader.next()).release?.();
    const began = performance.now();
    let [batches, took] = [0, 0];
    while (batches < LEAST || took < MILLISECONDS) {
      (await loader.next()).release?.();
      batches++;
      took = performance.now() - began;
    }
    const imagesPerSecond = (batches * batch * 1000) / took;
    const pictures = train.length;
    if (flags.json) return printJson({ data, size, workers, batch, pictures, loadBefore, batches, seconds: took / 1000, imagesPerSecond });
    const by = workers === 0 ? 'in the main process' : `by ${counted(workers, 'process', 'processes')}`;
    print(
      `${data}, ${counted(pictures, 'picture')}, brought to ${size} x ${size} in batches of ${count(batch)} ${by}: ${figure(imagesPerSecond)} images/s${workers > 1 ? `, ${figure(imagesPerSecond / workers)} each` : ''}`,
    );
  } finally {
    await loader.close();
  }
}

/** A trained model as an operand of a command: loaded, and checked for what the command needs of it. */
import { nearest, UsageError } from '../core/errors.js';
import type { Device } from '../torch/index.js';
import { decodes, type Loaded, loadModel, type WeightsInfo, weightsPath } from '../train/weights.js';

/** What a command needs of a model beside its encoder. */
export type Ability = 'decode' | 'generate';

/** Loads the model of a run folder or weights file. @throws UsageError when it cannot do what is needed; and as loadModel */
export function openModel(path: string, device: Device, needs: readonly Ability[]): Loaded {
  const loaded = loadModel(path, device);
  checkAbilities(path, loaded, needs);
  return loaded;
}

/** @throws UsageError when a model of this configuration has not learned something of `needs` */
export function checkAbilities(path: string, { config }: Pick<WeightsInfo, 'config'>, needs: readonly Ability[]): void {
  const { paradigm, weights, input } = config.objective;
  if (!decodes(config))
    throw new UsageError(
      `'${path}' has no decoder, so it makes no pictures: it was trained by paradigm '${paradigm}' without a reconstruction loss`,
    );
  if (needs.includes('generate') && (weights.denoise === 0 || input === 'clean'))
    throw new UsageError(
      `'${weightsPath(path)}' cannot draw new pictures: it was trained by paradigm '${paradigm}' without denoising. 'dsd reconstruct' works with it`,
    );
}

/** A class by name, by number, or `none`: the null class, for pictures of no class in particular. */
export function findClass(wanted: string, classes: readonly string[]): number {
  const exact = classes.indexOf(wanted);
  if (exact >= 0) return exact;
  const alike = classes.flatMap((name, i) => (name.toLowerCase() === wanted.toLowerCase() ? [i] : []));
  if (alike.length === 1) return alike[0] as number;
  const number = /^\d+$/.test(wanted) ? Number(wanted) : -1;
  if (number >= 0 && number < classes.length) return number;
  if (wanted === 'none') return classes.length;
  const guess = nearest(wanted, classes);
  const known = classes.length <= 20 ? classes.join(', ') : `${classes.length} of them, which 'dsd info --json' lists`;
  throw new UsageError(
    `there is no class '${wanted}'${guess ? `; did you mean '${guess}'?` : '.'} Classes are 0 to ${classes.length - 1}, or none for no class in particular; by name: ${known}`,
  );
}

/** Between a run at work and the files of a checkpoint: tensors to bytes in memory and back. */
import { join } from 'node:path';
import { DivergedError, FailureError } from '../core/errors.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import { encodeSafetensors, readSafetensors } from '../io/safetensors.js';
import { toFile, toTensor } from '../nn/stored.js';
import { type Device, gradNorm, noGrad, scope, type Tensor } from '../torch/index.js';
import { type CheckpointState, type Snapshot, stateFile } from './checkpoints.js';
import type { Accumulator } from './metrics.js';
import type { Stepper } from './step.js';
import { encodeWeights } from './weights.js';

const ACCUMULATED = 'accumulated.';

/** A weight is no number any more: such a checkpoint would take the place of a good one. */
export class NotFiniteError extends DivergedError {}

/** @throws NotFiniteError if an element of them is no number. Waits for the device */
export function checkFinite(name: string, tensors: ReadonlyMap<string, Tensor>): void {
  if (!Number.isFinite(noGrad(() => scope(() => Number(gradNorm([...tensors.values()]).item())))))
    throw new NotFiniteError(`the tensors of '${name}' are no longer finite, so none is made of them; those before stand`);
}

/**
 * Copies all that a run needs to go on into memory. Waits for the device; nothing of it is shared with what trains on.
 * @throws NotFiniteError
 */
export function takeSnapshot(stepper: Stepper, accumulator: Accumulator, state: CheckpointState): Snapshot {
  const files = new Map<string, readonly Uint8Array[]>();
  const accumulated = accumulator.state();
  try {
    for (const [name, tensors] of stepper.state()) {
      checkFinite(name, tensors);
      const bytes =
        name === 'online' || name === 'average'
          ? encodeWeights(tensors, stepper.frozen, {
              ...{ config: state.config, classes: state.classes, images: state.images },
              kind: name === 'online' ? 'raw' : 'average',
            })
          : encodeSafetensors(new Map([...tensors].map(([key, value]) => [key, toFile(value)])));
      files.set(`${name}.safetensors`, bytes);
    }
    if (accumulated.size > 0)
      files.set(
        'metrics.safetensors',
        encodeSafetensors(new Map([...accumulated].map(([key, value]) => [ACCUMULATED + key, toFile(value)]))),
      );
  } finally {
    for (const value of accumulated.values()) value.dispose();
  }
  return { images: state.images, files: new Map([...files, stateFile(state)]) };
}

/** Puts a checkpoint's tensors into a run that was made from its configuration. @throws FailureError naming the tensor that does not fit */
export function restore(
  path: string,
  state: CheckpointState,
  stepper: Stepper,
  accumulator: Accumulator,
  device: Device,
  disk: Disk = realDisk,
): void {
  for (const [name, tensors] of stepper.state()) {
    const file = join(path, `${name}.safetensors`);
    const found = readSafetensors(file, disk).tensors;
    for (const [key, value] of tensors) {
      const from = found.get(key);
      if (from?.dtype !== 'F32' || from.shape.join() !== value.shape.join())
        throw new FailureError(
          `'${file}': tensor '${key}' is ${from ? `${from.dtype} [${from.shape}]` : 'not there'}, wanted F32 [${value.shape}]: the checkpoint is of another network than its configuration says`,
        );
      noGrad(() => scope(() => value.copy_(toTensor(from, device))));
    }
  }
  stepper.refresh();
  stepper.steps = state.steps;
  stepper.micro = state.ranOn.micro;
  const file = join(path, 'metrics.safetensors');
  if (!disk.exists(file)) return;
  const sums = [...readSafetensors(file, disk).tensors].map(
    ([key, value]) => [key.slice(ACCUMULATED.length), toTensor(value, device)] as const,
  );
  accumulator.restore(new Map(sums));
}

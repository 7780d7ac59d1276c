/** The scale that latents begin with. */
import { noGrad } from '../torch/index.js';
import type { Stepper } from '../train/step.js';

/** The projection that makes the latent (dsd/sizes.ts). */
const LATENT_OUT = ['latent_out.weight', 'latent_out.bias'] as const;

/**
 * Latents begin at the noise's own scale, as latent diffusion normalises its own. What the first values make depends on the width (0.1 to 0.4 in
 * small networks), and a latent that begins far below the noise is suppressed already.
 */
export const NOISE_SCALE = 1;

/** Multiplies the untrained latent by scaling its projection in all copies of the weights. */
export function scaleLatent({ online, target, average }: Pick<Stepper, 'online' | 'target' | 'average'>, factor: number): void {
  noGrad(() => {
    for (const { weights } of [online, target, average]) for (const name of LATENT_OUT) weights.get(name).mul_(factor);
  });
}

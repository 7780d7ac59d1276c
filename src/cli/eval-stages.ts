/** What an evaluation is at, in words. */
import type { Stage } from '../eval/evaluate.js';

export const STAGES: Readonly<Record<Stage | 'latents', string>> = {
  latents: 'measuring latents',
  classifier: 'training the classifier, step',
  training: 'describing training pictures',
  reference: 'describing the reference',
  floor: 'describing other real pictures',
  reconstruction: 'reconstructing',
  components: 'measuring per-patch PCA',
  samples: 'drawing and describing samples',
  encoding: 'encoding pictures',
  probe: 'fitting the linear probe, step',
};

/** The card of a trained model: what a person who finds the folder needs to know, and nothing that was not measured. */
import { compression, countParameters, type ModelConfig, mostRank, tokens } from '../dsd/sizes.js';
import type { RunConfig } from './config.js';
import type { Evaluation } from './metrics.js';

export interface CardFacts {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly classes: readonly string[];
  readonly pictures: { readonly train: number; readonly heldOut: number };
  /** Author and licence of the pictures, where they ask for being named. */
  readonly credit: string | undefined;
  readonly images: number;
  readonly pcaPsnr: number;
  readonly evaluation: Evaluation | undefined;
}

const number = (value: number): string => value.toLocaleString('en');

/** Markdown, with the front matter that model hubs read. */
export function modelCard({ config, model, classes, pictures, credit, images, pcaPsnr, evaluation }: CardFacts): string {
  const { data, objective, train } = config;
  const shown = classes.slice(0, 20).join(', ');
  const measured = evaluation
    ? [
        ...(Number.isFinite(evaluation.psnr)
          ? [
              `- PSNR of reconstructions: ${evaluation.psnr.toFixed(2)} dB after ${number(evaluation.images)} pictures; per-patch PCA of equal width: ${pcaPsnr.toFixed(2)} dB`,
            ]
          : []),
        `- effective rank of the latent: ${evaluation.effectiveRank.toFixed(1)} of ${mostRank(model)}`,
      ]
    : ['- nothing yet'];
  return `---
library_name: dsd
license: ${credit ? 'other' : 'unknown'}
tags:
  - image-generation
  - diffusion
  - autoencoder
---

# ${config.preset}

One Vision Transformer that encodes, decodes and generates pictures of ${model.image} x ${model.image} pixels: Diffusion as Self-Distillation
(arXiv 2511.14716), trained by the open implementation \`dsd\`, whose shapes and weights are not the authors'.

- parameters: ${number(countParameters(model).model)}
- latent: ${tokens(model)} tokens of ${model.latent} channels, ${Number(compression(model).toFixed(2))} pixel values to one
- paradigm: ${objective.paradigm}${objective.labels ? '' : ', without labels'}
- trained on: ${data.source}, ${number(pictures.train)} pictures in ${number(classes.length)} classes (${shown}${classes.length > 20 ? ', ...' : ''})
- pictures seen: ${number(images)} of ${number(train.images)}
- weights: exponential moving average, decay ${train.averageDecay}
${credit ? `- pictures: ${credit}. The licence of a model trained on them is theirs to consider\n` : ''}
Measured on ${number(pictures.heldOut)} held-out pictures${evaluation ? ' or a part of them' : ''}, with these weights:

${measured.join('\n')}

\`config.json\` holds every setting, \`model.safetensors\` the same inside its metadata.

    dsd sample FOLDER
    dsd reconstruct FOLDER PICTURE
    dsd eval FOLDER
`;
}

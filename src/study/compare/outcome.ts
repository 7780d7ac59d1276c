/** What comes of a run of a comparing study, as its file has it. What reports read is checked; the rest is kept as it was written. */
import { z } from 'zod';
import type { RunResult } from '../study.js';
import type { CompareSettings } from './plan.js';

const health = z.looseObject({ effectiveRank: z.number(), deviation: z.number() });
const from = z.looseObject({ source: z.string(), count: z.number() });

const distances = z.looseObject({
  extractor: z.string(),
  name: z.string(),
  frechet: z.number(),
  precision: z.number().exactOptional(),
  recall: z.number().exactOptional(),
  count: z.number(),
});

const probes = z.looseObject({
  nearest: z.number(),
  linear: z.number(),
  blind: z.number(),
  protocol: z.looseObject({ train: from, heldOut: from, nearest: z.looseObject({ k: z.number() }) }),
});

/** Of a model that draws: an EvaluationReport. */
const drawing = z.looseObject({
  reconstruction: z.looseObject({
    psnr: z.number(),
    pcaPsnr: z.number(),
    mostRank: z.number(),
    latent: health,
    frechet: z.array(z.looseObject({ extractor: z.string(), name: z.string(), frechet: z.number() })),
  }),
  samples: z.array(
    z.looseObject({
      sampler: z.looseObject({
        solver: z.enum(['euler', 'heun']),
        steps: z.number(),
        guidance: z.number(),
        interval: z.tuple([z.number(), z.number()]),
        shift: z.number(),
        target: z.string(),
      }),
      distances: z.array(distances),
      accuracy: z.number().exactOptional(),
    }),
  ),
  floor: z.array(distances),
  realAccuracy: z.number().exactOptional(),
  probes: probes.exactOptional(),
  warnings: z.array(z.string()),
  protocol: z.looseObject({
    samples: z.number(),
    seed: z.number(),
    device: z.string(),
    weights: z.string(),
    labels: z.string(),
    noise: z.string(),
    precision: z.string(),
    pictures: z.string(),
    judges: z.array(
      z.looseObject({
        extractor: z.string(),
        distance: z.string(),
        dimension: z.number(),
        source: z.string(),
        reference: z.looseObject({ source: z.string(), count: z.number().nullable() }),
        floor: from.exactOptional(),
      }),
    ),
    classifier: z
      .looseObject({ steps: z.number(), batch: z.number(), trainedOn: z.string(), digest: z.string().exactOptional() })
      .exactOptional(),
    reconstruction: from,
  }),
});

/** Of one that does not: an EncoderReport. */
const encoding = z.looseObject({
  latent: health,
  mostRank: z.number(),
  probes: probes.exactOptional(),
  protocol: z.looseObject({ weights: z.string(), precision: z.string(), device: z.string(), latent: from }),
});

/** Samples as they are shown. */
const drawn = z.object({
  size: z.number(),
  channels: z.union([z.literal(1), z.literal(3)]),
  count: z.number(),
  /** Of each set the pictures one after another, as base64. */
  sets: z.array(z.object({ guidance: z.number(), pixels: z.string() })),
});

export const outcome = z.object({
  /** Its stages. */
  trained: z
    .array(
      z.object({
        name: z.string(),
        /** Its folder, in the study's. */
        run: z.string(),
        /** That encode, denoise and decode: see countParameters. */
        parameters: z.number(),
        images: z.number(),
        /** Of its training: see stageFlops. */
        flops: z.number(),
        /** In training steps. */
        seconds: z.number(),
        /** Steps not applied, because their gradient was not finite. */
        skipped: z.number(),
      }),
    )
    .min(1),
  /** Why its training or evaluation ended early, where values stopped being finite. Then there is no evaluation. */
  diverged: z.string().exactOptional(),
  drawing: drawing.exactOptional(),
  encoding: encoding.exactOptional(),
  drawn: drawn.exactOptional(),
  /** Seconds of the evaluation. */
  judgedIn: z.number(),
});

export type Outcome = z.infer<typeof outcome>;
export type DrawingReport = z.infer<typeof drawing>;
export type CompareResult = RunResult<CompareSettings, Outcome>;

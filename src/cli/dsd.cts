#!/usr/bin/env node
/**
 * What a shell starts. Pictures that other processes decoded are taken over in libuv's threads, of which a process has four unless the environment says
 * otherwise before the first is used; Node's loader of ES modules uses them before a line of ours runs, so this file alone is CommonJS. `main.js` by itself does the same, with four.
 */
import os = require('node:os');

const [FEWEST, MOST] = [4, 64];

process.env.UV_THREADPOOL_SIZE ||= String(Math.min(MOST, Math.max(FEWEST, os.availableParallelism())));
void import('./main.js');

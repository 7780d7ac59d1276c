#!/usr/bin/env node
/**
 * What a shell starts. Of libuv's threads, which read and write files (pictures that other processes have decoded too, a message's in one thread), a process has
 * four unless the environment says otherwise before the first is used; Node's loader of ES modules uses them before a line of ours runs, so this file alone is
 * CommonJS. `main.js` by itself does the same, with four.
 */
import os = require('node:os');

const [FEWEST, MOST] = [4, 64];

process.env.UV_THREADPOOL_SIZE ||= String(Math.min(MOST, Math.max(FEWEST, os.availableParallelism())));
void import('./main.js');

import { createHash } from 'node:crypto';

/** Any text gives an order of its own, the same each time. */
const order = process.env.CNI_TEST_ORDER ?? '';

/** Files whose tests wait for long. Begun last, they would leave the processors idle at the end. */
const waiting = /\/(?:runtimes|uml)\/|\/(?:dhcp|doctor|gc|hanging|probe|recovery|soak|whereabouts)[^/]*$/;

/** A number by which a file is sorted: at random, those that wait for long in the first half. */
const placeOf = (file) => {
  const name = file.slice(import.meta.dirname.length);
  const number = createHash('sha256').update(`${order} ${name}`).digest().readUInt32BE();
  return waiting.test(name) ? number / 2 : number;
};

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  workerThreads: false,
  // That node:ffi may change.
  nodeArguments: ['--disable-warning=ExperimentalWarning'],
  // As long as a guest may take, in which a whole file runs: AVA hears nothing of it meanwhile.
  timeout: '31m',
  sortTestFiles: (a, b) => placeOf(a) - placeOf(b),
};

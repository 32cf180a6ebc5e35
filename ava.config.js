import { createHash } from 'node:crypto';

const order = process.env.CNI_TEST_ORDER;

/**
 * A key to sort a file by: any text in CNI_TEST_ORDER gives an order of its own, the same each time. Otherwise
 * those come first that wait for long with the processors idle, so that others run beside them.
 */
const placeOf = (file) =>
  order === undefined
    ? `${/\/(?:runtimes|uml)\/|\/dhcp|\/doctor/.test(file) ? 0 : 1}${file}`
    : createHash('sha256').update(`${order} ${file}`).digest('hex');

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  workerThreads: false,
  // That node:ffi may change.
  nodeArguments: ['--disable-warning=ExperimentalWarning'],
  // As long as a guest may take, in which a whole file runs: AVA hears nothing of it meanwhile.
  timeout: '31m',
  sortTestFiles: (a, b) => (placeOf(a) < placeOf(b) ? -1 : 1),
};

import { createHash } from 'node:crypto';

const order = process.env.CNI_TEST_ORDER;
const placeOf = (file) => createHash('sha256').update(`${order} ${file}`).digest('hex');

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  workerThreads: false,
  // That node:ffi may change.
  nodeArguments: ['--disable-warning=ExperimentalWarning'],
  // As long as a guest may take, in which a whole file runs: AVA hears nothing of it meanwhile.
  timeout: '31m',
  // Any text gives an order of its own, the same each time.
  ...(order !== undefined && { sortTestFiles: (a, b) => (placeOf(a) < placeOf(b) ? -1 : 1) }),
};

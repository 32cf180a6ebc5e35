/** How the launcher starts the executable, seen from the executable. Source: launcher.c. */

/**
 * The beginning of the name of the directory that holds the executable, its loader and its libraries; the
 * digest of its content follows.
 */
export const privatePrefix = '.cni-plugins-';

/**
 * The beginning of the names of variables that the launcher has set aside, as Node.js, OpenSSL or the C
 * library would obey them.
 */
const setAside = 'CNI_FOR_CHILDREN_';

/** How this process was started. */
export interface Launch {
  /** Path of the program that stands for this suite under every plugin's name. */
  readonly program: string;
  readonly args: readonly string[];
}

/**
 * Reads the command line.
 * @param argv of the process: after its first two entries come "--", the launcher's path and the arguments.
 *   Without a launcher, as while the build trains the executable, only the arguments follow.
 */
export function readLaunch(argv: readonly string[]): Launch {
  const [, , separator, program, ...args] = argv;
  if (separator === '--' && program !== undefined) return { program, args };
  return { program: '/proc/self/exe', args: argv.slice(2) };
}

/**
 * The environment that the launcher was started with: for programs that this process runs, not for itself.
 * @param environment of this process.
 */
export function readEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const named = Object.entries(environment).map(([name, value]) => [
    name.startsWith(setAside) ? name.slice(setAside.length) : name,
    value,
  ]);
  return Object.fromEntries(named) as NodeJS.ProcessEnv;
}

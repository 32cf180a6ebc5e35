/** Checks one configuration file by itself. */

import { readFileSync } from 'node:fs';
import { type JsonNode, JsonSyntaxError, parseJson } from '../json.ts';
import { type NetworkList, readConfigFile } from '../libcni/conflist.ts';
import { standardInput } from '../settings.ts';
import { error, type Finding } from './finding.ts';
import { type CheckedNetwork, type CheckOptions, checkNetwork } from './network.ts';

/** A file and what there is to say about it. */
export interface CheckedFile {
  readonly file: string;
  readonly text: string;
  /** Undefined when it is not JSON. */
  readonly root: JsonNode | undefined;
  /** Offset of the first mistake in the syntax. */
  readonly syntaxOffset: number | undefined;
  /** Undefined when no runtime could load it. */
  readonly network: NetworkList | undefined;
  /** That network, and those nested in it. */
  readonly networks: readonly CheckedNetwork[];
  readonly findings: Finding[];
}

/** Reads a file, or what a shell passes as one, as in `cni validate <(…)`. */
function read(file: string): string {
  return file.startsWith('/dev/fd/') ? readFileSync(file, 'utf8') : readConfigFile(file);
}

/** Checks a file. */
export async function checkFile(file: string, options: CheckOptions): Promise<CheckedFile> {
  const nothing = {
    file,
    text: '',
    root: undefined,
    syntaxOffset: undefined,
    network: undefined,
    networks: [],
  };
  let text: string;
  try {
    text = file === standardInput ? readFileSync(0, 'utf8') : read(file);
  } catch (problem) {
    return {
      ...nothing,
      findings: [error('unreadable', '', `Cannot be read: ${(problem as Error).message}`)],
    };
  }
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (problem) {
    if (!(problem instanceof JsonSyntaxError)) throw problem;
    return {
      ...nothing,
      text,
      syntaxOffset: problem.offset,
      findings: [error('syntax', '', problem.message)],
    };
  }
  const { networks, findings } = await checkNetwork(root, text, file, options);
  const network = networks.find((one) => one.network.file === file)?.network;
  return { file, text, root, syntaxOffset: undefined, network, networks, findings: [...findings] };
}

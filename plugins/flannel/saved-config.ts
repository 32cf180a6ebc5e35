/**
 * What each attachment's delegate was configured with: by the time of DEL, flanneld may have leased another
 * subnet. One file per container, named after its ID, in the format of flannel's own plugin. A container on
 * several flannel networks, which that plugin cannot tell apart, has further files whose names include the
 * network.
 */

import { join } from 'node:path';
import { isValidName } from '../../lib/cni/invocation.ts';
import { parseJson } from '../../lib/cni/json.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { isObject } from '../../lib/object.ts';
import {
  isTorn,
  listStateFiles,
  readStateFile,
  removeStateFile,
  removeUnfinished,
  unlinkStateFile,
  writeStateFile,
} from '../../lib/state-file.ts';

/** A delegate's configuration. */
export interface DelegateConfig {
  name: string;
  type: string;
  [key: string]: unknown;
}

/** Separates a container ID from a network's name; neither can contain it. */
const separator = ':';

/**
 * The saved configurations of one directory. A container ID is a safe file name: the runner has checked it.
 */
export class SavedConfigs {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * Saves a container's configuration, without touching one of another network.
   * @throws CniError IOFailure when it cannot be written.
   */
  save(containerId: string, config: DelegateConfig): void {
    const [first, second] = this.filesOf(containerId, config.name);
    const other = this.tryRead(first);
    try {
      writeStateFile(other && other.name !== config.name ? second : first, JSON.stringify(config));
    } catch (error) {
      throw new CniError(
        ErrorCode.IOFailure,
        `Cannot save the delegate's configuration in "${this.directory}". Make it a writable directory with free space, or set "dataDir"`,
        (error as Error).message,
      );
    }
  }

  /**
   * Reads a container's configuration for a network.
   * @returns undefined when there is none: never saved, removed, or torn by a crash.
   */
  load(containerId: string, network: string): DelegateConfig | undefined {
    return this.filesOf(containerId, network)
      .map((file) => this.tryRead(file))
      .find((config) => config?.name === network);
  }

  /** Removes a container's configuration, unless it is of another network. */
  remove(containerId: string, network: string): void {
    for (const file of this.filesOf(containerId, network)) {
      const config = this.tryRead(file);
      if (!config || config.name === network) removeStateFile(file);
    }
  }

  /**
   * Removes a network's configurations, except those of the given containers. A file torn by a crash is
   * removed, too, unless its container is among them.
   * @param warn told of files that cannot be removed.
   */
  removeOthers(network: string, keep: ReadonlySet<string>, warn: (message: string) => void): void {
    removeUnfinished(this.directory, (name) => isValidName(name.split(separator)[0]!));
    for (const name of listStateFiles(this.directory)) {
      const [containerId = ''] = name.split(separator);
      const file = join(this.directory, name);
      try {
        if (keep.has(containerId) || !isValidName(containerId)) continue;
        const text = readStateFile(file) ?? '';
        const config = parse(text);
        if (config ? config.name === network : isTorn(text)) unlinkStateFile(file);
      } catch (error) {
        warn(`Cannot remove the saved configuration "${file}": ${(error as Error).message}`);
      }
    }
  }

  /** A file that cannot be read is as good as none: DEL then uses the current configuration. */
  private tryRead(file: string): DelegateConfig | undefined {
    try {
      return parse(readStateFile(file) ?? '');
    } catch {
      return undefined;
    }
  }

  private filesOf(containerId: string, network: string): [string, string] {
    const first = join(this.directory, containerId);
    return [first, `${first}${separator}${network}`];
  }
}

/** @returns undefined for what was not saved here. */
function parse(text: string): DelegateConfig | undefined {
  try {
    const value = parseJson(text);
    const isComplete = isObject(value) && typeof value.name === 'string' && typeof value.type === 'string';
    return isComplete ? (value as DelegateConfig) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * What each attachment's delegate was configured with: flanneld may have leased another subnet by the time of DEL.
 * One file a container, named after its ID, in the format of flannel's own plugin.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isObject } from '../../lib/cni/schema.ts';
import { makeDirectory } from '../../lib/directory.ts';

/** A delegate's configuration. */
export interface DelegateConfig {
  name: string;
  type: string;
  [key: string]: unknown;
}

/** The saved configurations of one directory. A container ID is a safe file name: the runner has checked it. */
export class SavedConfigs {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Saves a container's configuration. @throws Error when it cannot be written. */
  save(containerId: string, config: DelegateConfig): void {
    try {
      makeDirectory(this.directory, 0o700);
      writeFileSync(this.fileOf(containerId), JSON.stringify(config), { mode: 0o600, flush: true });
    } catch (error) {
      throw new Error(
        `Cannot save the delegate's configuration in "${this.directory}". Make it a writable directory, or set "dataDir"`,
        { cause: error },
      );
    }
  }

  /**
   * Reads a container's configuration for a network.
   * @returns undefined when there is none: never saved, removed, torn by a crash, or of another network that the
   *   container is in.
   */
  load(containerId: string, network: string): DelegateConfig | undefined {
    const config = this.read(containerId);
    return config?.name === network ? config : undefined;
  }

  /** Removes a container's configuration, unless it is of another network. */
  remove(containerId: string, network: string): void {
    const config = this.read(containerId);
    if (!config || config.name === network) rmSync(this.fileOf(containerId), { force: true });
  }

  /** IDs of the containers that have a saved configuration for the network. */
  containersOf(network: string): string[] {
    let files: string[];
    try {
      files = readdirSync(this.directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    return files.filter((file) => this.load(file, network));
  }

  private read(containerId: string): DelegateConfig | undefined {
    let value: unknown;
    try {
      value = JSON.parse(readFileSync(this.fileOf(containerId), 'utf8'));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (error instanceof SyntaxError || code === 'ENOENT' || code === 'ENOTDIR') return undefined;
      throw new Error(`Cannot read the delegate's saved configuration in "${this.directory}"`, {
        cause: error,
      });
    }
    const complete = isObject(value) && typeof value.name === 'string' && typeof value.type === 'string';
    return complete ? (value as DelegateConfig) : undefined;
  }

  private fileOf(containerId: string): string {
    return join(this.directory, containerId);
  }
}

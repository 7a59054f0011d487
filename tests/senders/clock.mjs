// The clock that the SDKs see. Some look at it before they sign or accept, and requests are made for other times than now.

const Real = Date;
let milliseconds = Real.now();

globalThis.Date = class extends Real {
  constructor(...given) {
    if (given.length === 0) {
      super(milliseconds);
    } else {
      super(...given);
    }
  }

  static now() {
    return milliseconds;
  }
};

/** From now on it is `at` seconds since 1970. */
export const setClock = (at) => {
  milliseconds = at * 1000;
};

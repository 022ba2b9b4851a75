-- A database of judgements, format 2.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Numbers are given in an order of chance, so that they tell nothing of the names.
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE judges (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE,   -- the secret part of the link
    -- Who is paused cannot answer for now; who is revoked has a link that leads nowhere.
    state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'revoked')),
    is_left_out INTEGER NOT NULL DEFAULT 0,   -- no command counts the answers
    about TEXT NOT NULL DEFAULT '{}',         -- JSON: consent, parameters of the link
    made_at TEXT NOT NULL
);

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    n_answers INTEGER NOT NULL,
    about TEXT NOT NULL,          -- JSON: settings, features, accuracy on the random share
    made_at TEXT NOT NULL
);

CREATE TABLE questions (
    id INTEGER PRIMARY KEY,
    anchor INTEGER NOT NULL REFERENCES images,
    first INTEGER NOT NULL REFERENCES images,
    second INTEGER NOT NULL REFERENCES images,
    how TEXT NOT NULL CHECK (how IN ('random', 'margin', 'disagreement', 'gold', 'imported')),
    model INTEGER REFERENCES models,
    score REAL,                   -- margin or disagreement that it was chosen by
    expected REAL,                -- the model's chance that a judge chooses the first
    probability REAL,             -- of being drawn by chance, whichever way round
    made_at TEXT NOT NULL,
    CHECK ((how = 'random') = (probability IS NOT NULL))
);

CREATE TABLE screens (
    id INTEGER PRIMARY KEY,
    judge INTEGER NOT NULL REFERENCES judges,
    kind TEXT NOT NULL CHECK (kind IN ('question', 'grid')),
    question INTEGER REFERENCES questions,
    purpose TEXT NOT NULL CHECK (
        purpose IN ('fresh', 'overlap', 'repeat', 'gold', 'practice')),
    repeats INTEGER REFERENCES screens,
    anchor INTEGER NOT NULL REFERENCES images,
    shown TEXT NOT NULL,          -- JSON: images from left to right
    n_pick INTEGER NOT NULL,      -- how many are picked of a grid at most; 1 of a question
    drawn TEXT,                   -- JSON: how the images of a grid were drawn
    made_at TEXT NOT NULL,
    CHECK ((kind = 'question') = (question IS NOT NULL))
);
CREATE INDEX screens_of_judge ON screens (judge, id);
CREATE INDEX screens_of_question ON screens (question);

-- An answer that was undone stays, with the time of it.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE, -- made by the page: the same answer sent twice is known
    screen INTEGER NOT NULL REFERENCES screens,
    judge INTEGER NOT NULL REFERENCES judges,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'cant-tell', 'grid')),
    side TEXT NOT NULL CHECK (side IN ('left', 'right', 'neither', 'grid')),
    picked TEXT,                  -- JSON: images of a grid
    -- From the images being there to the answer; 0 where nobody measured it.
    response_ms REAL NOT NULL CHECK (response_ms >= 0),
    method TEXT NOT NULL CHECK (
        method IN ('keyboard', 'mouse', 'touch', 'form', 'offline', 'import')),
    answered_at TEXT NOT NULL,
    undone_at TEXT,
    undo_id TEXT UNIQUE
);
CREATE UNIQUE INDEX one_standing_answer ON answers (screen) WHERE undone_at IS NULL;
CREATE INDEX answers_of_judge ON answers (judge, id);

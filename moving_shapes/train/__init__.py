"""How `vidlada-tiny` is trained on moving shapes: its first weights, and the tasks of its stages, see `recipe.yaml`.

1. `cells`: the tower learns the content of each cell of a frame, encoded in the embeddings of the words for it.
2. `packed_qa`: the text model learns what happens to each shape over the frames (dense labels, which only training
   has), and to answer many questions about one video in one sequence.
3. `restricted_conversations`: the objective itself, one question at a time, with a softmax that leaves out held-out
   combinations. The last stage, the general task "conversations", has all words in it.
"""
